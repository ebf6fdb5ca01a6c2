"""OCMF records: parse, verify the signature, judge what they state (specs/lem-dcbm.md sections 13 and 14).

Sans-I/O. A record is hostile until verified: whatever it holds, ``verify`` answers with a ``Verification`` and raises
nothing, and its work is bounded by ``MAX_RECORD_BYTES`` and ``MAX_READINGS``.

The signature covers the exact bytes between the first bar and the bar that ends the payload, so those bytes are cut
out of what was received and never rebuilt. Numbers stay decimals; nothing here touches a binary float.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from app.errors import ParameterError

MAX_RECORD_BYTES: Final = 1 << 20  # specs/lem-dcbm.md section 4: body limit
MAX_READINGS: Final = 10_000  # ours; genuine records hold two to some dozen
MAX_NUMBER_CHARS: Final = 60  # ours; a longer number is kept as text and never computed with
MAX_KEY_CHARS: Final = 4096

DEFAULT_ALGORITHM: Final = "ECDSA-secp256r1-SHA256"
LEM_KEY_HEADER: Final = "3059301306072A8648CE3D020106082A8648CE3D03010703420004"  # section 3.1, 27 bytes

PREFIX: Final = "OCMF|"
OUTER_SPACE: Final = " \t\r\n\v\f"
JSON_SPACE: Final = re.compile(r"[ \t\r\n]*")

INHERITED: Final = ("TM", "TX", "RI", "RU", "RT", "EF", "ST")  # section 13: omitted = value of the previous reading
BEGIN: Final = "B"
ENDS: Final = frozenset("ELRAP")
COMPENSATED_IMPORT: Final = frozenset({0x98, 0xB1, 0xB3})
PLAIN_IMPORT: Final = frozenset({0x01, 0x9E, 0xB0, 0xB2})
EXPORT: Final = frozenset({0x02})
BAD_LEVELS: Final = frozenset({"MISMATCH", "INVALID", "OUTDATED", "UNKNOWN"})

Scalar: TypeAlias = str | int | Decimal | bool | None


class Verdict(StrEnum):
    """Outcome of the signature check, in the order of precedence of section 14 read from the end."""

    VALID = "VALID"
    INVALID_SIGNATURE = "INVALID_SIGNATURE"
    KEY_MISMATCH = "KEY_MISMATCH"
    BAD_KEY = "BAD_KEY"
    NO_KEY = "NO_KEY"
    UNSUPPORTED_ALGORITHM = "UNSUPPORTED_ALGORITHM"
    MALFORMED = "MALFORMED"

    @property
    def sentence(self) -> str:
        return VERDICT_SENTENCES[self]


VERDICT_SENTENCES: Final[Mapping[Verdict, str]] = MappingProxyType(
    {
        Verdict.VALID: "The signature is genuine: the record is unchanged since it was signed with this key.",
        Verdict.INVALID_SIGNATURE: "The signature does not fit: the record was changed, or another key signed it.",
        Verdict.KEY_MISMATCH: "The public key belongs to another curve than the one the record names; not checked.",
        Verdict.BAD_KEY: "The public key cannot be used; the signature was not checked.",
        Verdict.NO_KEY: "There is no public key to check the signature with.",
        Verdict.UNSUPPORTED_ALGORITHM: "The record names a signature algorithm this program cannot check.",
        Verdict.MALFORMED: "This is not a readable OCMF record; it is kept as received and cannot be verified.",
    }
)


class KeyOrigin(StrEnum):
    """Where the key used came from."""

    NONE = "none"
    METER = "meter"  # read from the meter in the same session
    PRINTED = "printed"  # printed on the meter, and typed or scanned
    COMMISSIONED = "commissioned"  # stored at commissioning
    EMBEDDED = "embedded"  # third part of the record itself


class Trust(StrEnum):
    """What a valid signature is worth; a statement of its own beside the verdict (section 14)."""

    NONE = "none"
    EMBEDDED = "embedded"
    INTEGRITY = "integrity only"
    AUTHENTIC = "authentic"

    @property
    def sentence(self) -> str:
        return TRUST_SENTENCES[self]


TRUST_SENTENCES: Final[Mapping[Trust, str]] = MappingProxyType(
    {
        Trust.NONE: "Nothing can be said about the origin of the record.",
        Trust.EMBEDDED: "The key came inside the record: it shows that the record fits itself, not who made it.",
        Trust.INTEGRITY: "The key was read from the meter in the same session: integrity only. "
        "Compare it with the key printed on the meter to prove the origin.",
        Trust.AUTHENTIC: "The key is the one printed on the meter or stored at commissioning: the record is authentic.",
    }
)


class FindingCode(StrEnum):
    """Reasons why a validly signed record is not billable.

    The first seven are the table of section 14; the last three belong to a begin and an end in two records.
    """

    INCOMPLETE = "INCOMPLETE"
    REGISTER_BACKWARDS = "REGISTER_BACKWARDS"
    TIME_ORDER = "TIME_ORDER"
    ENERGY_ERROR_FLAG = "ENERGY_ERROR_FLAG"
    METER_STATE = "METER_STATE"
    IDENTIFICATION_LEVEL = "IDENTIFICATION_LEVEL"
    CLOCK_STATE = "CLOCK_STATE"
    SERIAL_DIFFERS = "SERIAL_DIFFERS"
    PAGINATION_GAP = "PAGINATION_GAP"
    KEY_DIFFERS = "KEY_DIFFERS"


@dataclass(frozen=True, slots=True)
class PlausibilityFinding:
    """One reason why the record is not billable, with a sentence for the person."""

    code: FindingCode
    sentence: str

    def to_json(self) -> dict[str, str]:
        return {"code": self.code.value, "sentence": self.sentence}


@dataclass(frozen=True, slots=True)
class Curve:
    """One row of the curve table of section 14; ``size`` is the coordinate's length in bytes."""

    name: str
    size: int
    curve: ec.EllipticCurve | None


_ROWS: Final = (
    Curve("secp256r1", 32, ec.SECP256R1()),
    Curve("secp256k1", 32, ec.SECP256K1()),
    Curve("secp384r1", 48, ec.SECP384R1()),
    Curve("secp192r1", 24, ec.SECP192R1()),
    Curve("secp521r1", 66, ec.SECP521R1()),
    Curve("brainpool256r1", 32, ec.BrainpoolP256R1()),
    Curve("brainpool384r1", 48, ec.BrainpoolP384R1()),
    Curve("secp192k1", 24, None),
)
CURVES: Final[Mapping[str, Curve]] = MappingProxyType(
    {row.name: row for row in _ROWS} | {"brainpoolp256r1": _ROWS[5], "brainpoolp384r1": _ROWS[6]}
)
HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
)


# ---------------------------------------------------------------- times, numbers, OBIS

_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,12}))?)?"
    r"[ ]?(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2})?)?"
)
_OCMF_TIME: Final = re.compile(r"(.*?)(?:[ ]+([A-Za-z]+))?", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_OBIS: Final = re.compile(
    r"([0-9A-Fa-f]{1,2})-([0-9A-Za-z]{1,3}):([0-9A-Fa-f]{1,2})\.([0-9A-Fa-f]{1,2})\.([0-9A-Za-z]{1,3})"
    r"(?:[*.&]([0-9A-Za-z]{1,3}))?"
)
_PAGINATION: Final = re.compile(r"([A-Za-z])([0-9]{1,18})")
_EXACT: Final = Context(prec=400, traps=[Inexact, InvalidOperation])
_UNITS: Final[Mapping[str, int]] = MappingProxyType({"kwh": 0, "wh": -3})


def parse_time(text: str) -> datetime | None:
    """Read an ISO 8601 time as meters write it, leniently.

    A comma or dot before the fraction (cut to microseconds), a zone with or without colon, ``Z``, or none: then the
    result has no zone. None when it is not a time.
    Source: specs/lem-dcbm.md sections 3.2 and 13 (TM).
    """
    if len(text) > 64 or (found := _TIME.fullmatch(text.strip())) is None:
        return None
    year, month, day, hour, minute, second, fraction, zulu, sign, zone_hour, zone_minute = found.groups()
    zone: timezone | None = None
    try:
        if zulu:
            zone = UTC
        elif sign:
            offset = timedelta(hours=int(zone_hour), minutes=int(zone_minute or 0))
            zone = timezone(-offset if sign == "-" else offset)
        microsecond = int(((fraction or "") + "000000")[:6])
        return datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0), microsecond, tzinfo=zone
        )
    except ValueError:
        return None


def is_bounded(number: Decimal) -> bool:
    """Whether digits and exponent are small enough to compute with and to print in full."""
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_NUMBER_CHARS and number.adjusted() <= MAX_NUMBER_CHARS


def parse_number(text: str) -> Decimal | None:
    """A plain decimal number with padding blanks allowed; None when it is none or beyond 60 digits either way."""
    text = text.strip(" ") if len(text) <= 4 * MAX_NUMBER_CHARS else text
    if len(text) > MAX_NUMBER_CHARS or _NUMBER.fullmatch(text) is None:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if is_bounded(number) else None


def _json_number(text: str) -> int | Decimal | str:
    """A JSON number: int up to 18 digits, else Decimal; a monstrous one stays text and is never computed with."""
    if len(text) > MAX_NUMBER_CHARS:
        return text
    if text.lstrip("-").isdigit() and len(text) <= 18:
        return int(text)
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _value(raw: Any) -> Decimal | None:
    match raw:
        case bool():
            return None
        case int():
            return Decimal(raw)
        case Decimal():
            return raw if is_bounded(raw) else None
        case str():
            return parse_number(raw)
        case _:
            return None


def _text(raw: Any) -> str:
    """The text, or ""; half characters that JSON escapes can smuggle in are replaced, so that it can be stored."""
    if not isinstance(raw, str):
        return ""
    try:
        raw.encode()
    except UnicodeEncodeError:
        return raw.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return raw


def _plain(raw: Scalar) -> Any:
    return str(raw) if isinstance(raw, Decimal) else raw


def number_text(number: Decimal | None) -> str | None:
    """Digits without an exponent, every decimal kept."""
    return None if number is None else format(number, "f")


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading, inheritance resolved. Texts are as received, "" where absent or not a text."""

    time_text: str = ""
    time: datetime | None = None
    clock: str = ""  # U, I, S, R; "" when there is none
    transaction: str = ""  # TX
    value: Decimal | None = None
    obis: str = ""
    unit: str = ""
    current: str = ""  # RT: AC or DC
    error_flags: str | None = ""  # EF; None when it is no text
    state: str = ""  # ST

    @property
    def groups(self) -> tuple[int, int, int] | None:
        """OBIS groups A, C, D as numbers (hexadecimal, section 14); None when RI is no OBIS name."""
        found = _OBIS.fullmatch(self.obis.strip())
        return None if found is None else (int(found[1], 16), int(found[3], 16), int(found[4], 16))

    @property
    def energy_kwh(self) -> Decimal | None:
        """The value in kWh, exact; None when the unit is not an energy or the value is not a usable number."""
        shift = _UNITS.get(self.unit.strip().lower())
        if self.value is None or shift is None:
            return None
        return self.value.scaleb(shift, _EXACT) if shift else self.value

    def to_json(self) -> dict[str, Any]:
        return {
            "TM": self.time_text,
            "TX": self.transaction,
            "RV": number_text(self.value),
            "RI": self.obis,
            "RU": self.unit,
            "RT": self.current,
            "EF": self.error_flags,
            "ST": self.state,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the payload states (section 13). Texts are "" where absent. ``cable`` is UC of the first reading, or LC."""

    format_version: str = ""
    gateway: str = ""
    gateway_serial: str = ""
    gateway_version: str = ""
    pagination: str = ""
    meter_vendor: str = ""
    meter_model: str = ""
    own_meter_serial: str = ""  # MS
    meter_firmware: str = ""
    user_assigned: bool | None = None
    identification_level: str = ""
    identification_flags: tuple[str, ...] = ()
    identification_type: str = ""
    identification_data: str = ""
    tariff_text: str = ""
    controller_firmware: str = ""
    charge_point_type: str = ""
    charge_point: str = ""
    cable: Mapping[str, Scalar] | None = None
    readings: tuple[Reading, ...] = ()
    unreadable_readings: int = 0

    @property
    def meter_serial(self) -> str:
        """MS, or GS for producers that write no MS."""
        return self.own_meter_serial or self.gateway_serial

    @property
    def cable_id(self) -> int | None:
        """UC.UI of the first reading, or LC.LI in newer records."""
        if self.cable is None:
            return None
        number = self.cable.get("UI", self.cable.get("LI"))
        return number if isinstance(number, int) and not isinstance(number, bool) else None


def _scalars(raw: Any) -> Mapping[str, Scalar] | None:
    """The flat part of a JSON object; nested values are dropped so that nothing hostile lives on in the result."""
    if not isinstance(raw, dict):
        return None
    return MappingProxyType(
        {
            _text(key): _text(item) if isinstance(item, str) else item
            for key, item in raw.items()
            if item is None or isinstance(item, (str, int, Decimal, bool))
        }
    )


def _reading(fields: Mapping[str, Any]) -> Reading:
    time_text = _text(fields.get("TM"))
    time: datetime | None = None
    clock = ""
    if len(time_text) <= 64 and (found := _OCMF_TIME.fullmatch(time_text.strip())) is not None:
        time = parse_time(found[1])
        clock = found[2] if found[2] in ("U", "I", "S", "R") else ""
    flags = fields.get("EF", "")
    return Reading(
        time_text=time_text,
        time=time,
        clock=clock,
        transaction=_text(fields.get("TX")),
        value=_value(fields.get("RV")),
        obis=_text(fields.get("RI")),
        unit=_text(fields.get("RU")),
        current=_text(fields.get("RT")),
        error_flags=_text(flags) if flags is None or isinstance(flags, str) else None,
        state=_text(fields.get("ST")),
    )


def _resolve(raw: Any) -> Iterator[Reading | None]:
    """Readings with omitted fields inherited from the one before (section 13); None for what is no object."""
    carried: dict[str, Any] = {}
    for item in raw[:MAX_READINGS] if isinstance(raw, list) else ():
        if not isinstance(item, dict):
            yield None
            continue
        for key in INHERITED:
            if key in item:
                carried[key] = item[key]
        yield _reading(carried | {"RV": item.get("RV")})


def _record(payload: Mapping[str, Any]) -> Record:
    raw = payload.get("RD")
    resolved = list(_resolve(raw))
    listed = raw if isinstance(raw, list) else []
    first = listed[0] if listed and isinstance(listed[0], dict) else {}
    cable = _scalars(first.get("UC"))
    if cable is None:
        cable = _scalars(payload.get("LC"))
    version = payload.get("FV")
    assigned = payload.get("IS")
    flags = payload.get("IF")
    return Record(
        format_version=str(version) if isinstance(version, (int, Decimal)) else _text(version),
        gateway=_text(payload.get("GI")),
        gateway_serial=_text(payload.get("GS")),
        gateway_version=_text(payload.get("GV")),
        pagination=_text(payload.get("PG")),
        meter_vendor=_text(payload.get("MV")),
        meter_model=_text(payload.get("MM")),
        own_meter_serial=_text(payload.get("MS")),
        meter_firmware=_text(payload.get("MF")),
        user_assigned=assigned if isinstance(assigned, bool) else None,
        identification_level=_text(payload.get("IL")),
        identification_flags=tuple(_text(flag) for flag in flags[:16] if isinstance(flag, str))
        if isinstance(flags, list)
        else (),
        identification_type=_text(payload.get("IT")),
        identification_data=_text(payload.get("ID")),
        tariff_text=_text(payload.get("TT")),
        controller_firmware=_text(payload.get("CF")),
        charge_point_type=_text(payload.get("CT")),
        charge_point=_text(payload.get("CI")),
        cable=cable,
        readings=tuple(reading for reading in resolved if reading is not None),
        unreadable_readings=sum(reading is None for reading in resolved) + max(0, len(listed) - MAX_READINGS),
    )


# ---------------------------------------------------------------- what the record says about energy


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Begin and end of the transaction in its billing register, and the energies, exact, in kWh.

    ``begin`` and ``end`` are None unless there is exactly one of each; an energy is None when it cannot be formed.
    """

    begin: Reading | None = None
    end: Reading | None = None
    export_begin: Reading | None = None
    export_end: Reading | None = None

    @property
    def import_start_kwh(self) -> Decimal | None:
        return None if self.begin is None else self.begin.energy_kwh

    @property
    def import_end_kwh(self) -> Decimal | None:
        return None if self.end is None else self.end.energy_kwh

    @property
    def import_energy_kwh(self) -> Decimal | None:
        return _difference(self.import_start_kwh, self.import_end_kwh)

    @property
    def export_start_kwh(self) -> Decimal | None:
        return None if self.export_begin is None else self.export_begin.energy_kwh

    @property
    def export_end_kwh(self) -> Decimal | None:
        return None if self.export_end is None else self.export_end.energy_kwh

    @property
    def export_energy_kwh(self) -> Decimal | None:
        return _difference(self.export_start_kwh, self.export_end_kwh)

    @property
    def time_status(self) -> str:
        """Clock state of the begin reading, or of the end reading when there is no begin."""
        reading = self.begin or self.end
        return "" if reading is None else reading.clock

    def to_json(self) -> dict[str, Any]:
        return {
            "begin": _time_text(self.begin),
            "end": _time_text(self.end),
            "time_status": self.time_status,
            "import_start_kWh": number_text(self.import_start_kwh),
            "import_end_kWh": number_text(self.import_end_kwh),
            "import_energy_kWh": number_text(self.import_energy_kwh),
            "export_start_kWh": number_text(self.export_start_kwh),
            "export_end_kWh": number_text(self.export_end_kwh),
            "export_energy_kWh": number_text(self.export_energy_kwh),
        }


def _time_text(reading: Reading | None) -> str | None:
    return None if reading is None or reading.time is None else reading.time.isoformat()


def _difference(start: Decimal | None, end: Decimal | None) -> Decimal | None:
    return None if start is None or end is None else _EXACT.subtract(end, start)


def _register(readings: Sequence[Reading], names: frozenset[int]) -> list[Reading]:
    return [
        reading
        for reading in readings
        if (groups := reading.groups) is not None and groups[0] == 1 and groups[2] == 8 and groups[1] in names
    ]


def _single(readings: Sequence[Reading]) -> Reading | None:
    return readings[0] if len(readings) == 1 else None


def _edges(register: Sequence[Reading]) -> tuple[list[Reading], list[Reading]]:
    return [r for r in register if r.transaction == BEGIN], [r for r in register if r.transaction in ENDS]


def read_statement(readings: Sequence[Reading]) -> Statement:
    """Find begin and end in the billing register and in the export register (section 14, billing register)."""
    begins, ends = _edges(_register(readings, COMPENSATED_IMPORT) or _register(readings, PLAIN_IMPORT))
    export_begins, export_ends = _edges(_register(readings, EXPORT))
    return Statement(
        begin=_single(begins),
        end=_single(ends),
        export_begin=_single(export_begins),
        export_end=_single(export_ends),
    )


def _judge(records: Sequence[Record], statement: Statement) -> Iterator[PlausibilityFinding]:
    """The plausibility table of section 14, row by row; several records make one transaction."""
    begin, end = statement.begin, statement.end
    unreadable = sum(record.unreadable_readings for record in records)
    if begin is None or end is None or statement.import_energy_kwh is None:
        yield PlausibilityFinding(FindingCode.INCOMPLETE, _why_incomplete(begin, end))
    elif unreadable:
        yield PlausibilityFinding(FindingCode.INCOMPLETE, f"{unreadable} readings of the record cannot be read.")
    energy = statement.import_energy_kwh
    if energy is not None and energy < 0:
        yield PlausibilityFinding(
            FindingCode.REGISTER_BACKWARDS,
            f"The register ran backwards: {number_text(statement.import_end_kwh)} kWh at the end, "
            f"{number_text(statement.import_start_kwh)} kWh at the begin.",
        )
    if begin is not None and end is not None and (text := _time_order(begin, end)):
        yield PlausibilityFinding(FindingCode.TIME_ORDER, text)
    edges = [(name, reading) for name, reading in (("begin", begin), ("end", end)) if reading is not None]
    for name, reading in edges:
        if reading.error_flags is None or "E" in reading.error_flags:
            yield PlausibilityFinding(
                FindingCode.ENERGY_ERROR_FLAG, f"The meter marked the energy of the {name} reading as unusable."
            )
    for name, reading in edges:
        if reading.state != "G":
            yield PlausibilityFinding(
                FindingCode.METER_STATE,
                f"The meter's state at the {name} reading is {reading.state[:8] or 'not given'}, not G (good).",
            )
    for level in dict.fromkeys(record.identification_level for record in records):
        if level in BAD_LEVELS:
            yield PlausibilityFinding(
                FindingCode.IDENTIFICATION_LEVEL, f"The user's identification is not sound: level {level}."
            )
    if begin is not None and not begin.clock:
        yield PlausibilityFinding(FindingCode.CLOCK_STATE, "The begin reading does not say how good its clock was.")
    elif begin is not None and begin.clock == "R" and end is not None and end.clock != "R":
        yield PlausibilityFinding(
            FindingCode.CLOCK_STATE,
            "The begin reading counts time relatively (R) and the end reading does not: the duration is not measured.",
        )


def _why_incomplete(begin: Reading | None, end: Reading | None) -> str:
    if begin is None and end is None:
        return "The billing register holds neither exactly one begin nor exactly one end reading."
    if begin is None:
        return "The billing register does not hold exactly one begin reading."
    if end is None:
        return "The billing register does not hold exactly one end reading."
    return "The begin or end reading holds no usable energy."


def _time_order(begin: Reading, end: Reading) -> str:
    if begin.time is None or end.time is None or (begin.time.tzinfo is None) != (end.time.tzinfo is None):
        return "The times of begin and end cannot be compared."
    if end.time < begin.time:
        return f"The end ({end.time.isoformat()}) lies before the begin ({begin.time.isoformat()})."
    return ""


# ---------------------------------------------------------------- keys


class _Stop(Exception):
    """A verdict on its way out."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.verdict = verdict
        self.detail = detail


_PEM_LINE: Final = re.compile(r"-----[^-]{0,80}-----")
_KEY_NOISE: Final = re.compile(r"[\s:]+")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")


def _hex(text: str) -> bytes | None:
    return bytes.fromhex(text) if _HEX.fullmatch(text) else None


def _base64(text: str) -> bytes | None:
    body = text.rstrip("=")
    if not body or len(text) - len(body) > 2:
        return None
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _load_key(text: str, row: Curve) -> ec.EllipticCurvePublicKey:
    """Section 14 step 6. Raises ``_Stop`` with BAD_KEY, KEY_MISMATCH or UNSUPPORTED_ALGORITHM."""
    if len(text) > MAX_KEY_CHARS:
        raise _Stop(Verdict.BAD_KEY, "The key text is far too long.")
    packed = _KEY_NOISE.sub("", _PEM_LINE.sub("", text))
    data = _hex(packed) or _base64(packed)
    if data is None:
        raise _Stop(Verdict.BAD_KEY, "The key text is neither hexadecimal nor base64.")
    if row.curve is None:
        raise _Stop(Verdict.UNSUPPORTED_ALGORITHM, f"The curve {row.name} is not available.")
    point = _point_bytes(data, row.size)
    try:
        if point is not None:
            return ec.EllipticCurvePublicKey.from_encoded_point(row.curve, point)
        key = serialization.load_der_public_key(data)
    except UnsupportedAlgorithm:
        if point is not None:
            raise _Stop(Verdict.UNSUPPORTED_ALGORITHM, f"The curve {row.name} is not available here.") from None
        raise _Stop(Verdict.KEY_MISMATCH, f"The key names a curve that is not {row.name}.") from None
    except (ValueError, TypeError):
        what = f"a point on {row.name}" if point is not None else "a public key"
        raise _Stop(Verdict.BAD_KEY, f"The {len(data)} bytes of the key are not {what}.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _Stop(Verdict.BAD_KEY, "The key is not a key of an elliptic curve.")
    if key.curve.name.lower() != row.curve.name.lower():
        raise _Stop(Verdict.KEY_MISMATCH, f"The key is on {key.curve.name}, the record names {row.name}.")
    return key


def _point_bytes(data: bytes, size: int) -> bytes | None:
    """SEC 1 form of a point given as 04||X||Y, 02/03||X or bare X||Y; the three differ in length."""
    if len(data) == 2 * size + 1 and data[0] == 4:
        return data
    if len(data) == size + 1 and data[0] in (2, 3):
        return data
    if len(data) == 2 * size:
        return b"\x04" + data
    return None


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def read_key(text: str, curve: str = "secp256r1") -> bytes:
    """Read a public key in any form of section 14 step 6.

    Args:
        text: SubjectPublicKeyInfo in hex, base64 or PEM, or a point; blanks and colons allowed.
        curve: name from the curve table, case-insensitive; LEM uses secp256r1.
    Returns:
        the point 04||X||Y, 2 n + 1 bytes for a curve of n bytes.
    Raises:
        ParameterError: unusable, or on another curve.
    """
    row = CURVES.get(curve.lower())
    if row is None:
        raise ParameterError(f"There is no curve {curve[:40]!r}; known: {', '.join(CURVES)}.", "curve")
    try:
        return _point(_load_key(text, row))
    except _Stop as stop:
        raise ParameterError(f"{stop.verdict.sentence} {stop.detail}", "public_key") from None


@dataclass(frozen=True, slots=True)
class KeyAgreement:
    """Whether the two key fields of a LEM status document agree; ``agrees`` is None when one is not known."""

    agrees: bool | None
    sentence: str


def check_lem_keys(public_key_ocmf: str, public_key: str) -> KeyAgreement:
    """Compare ``publicKeyOcmf`` with the fixed header plus ``publicKey`` (sections 3.1 and 14)."""
    whole = _KEY_NOISE.sub("", public_key_ocmf).upper()
    bare = _KEY_NOISE.sub("", public_key).upper()
    if not whole or not bare:
        return KeyAgreement(None, "Only one form of the meter's public key is known; there is nothing to compare.")
    if re.fullmatch(r"[0-9A-F]{128}", bare) is None:
        return KeyAgreement(False, "publicKey is not a point of 128 hexadecimal digits.")
    if whole != LEM_KEY_HEADER + bare:
        return KeyAgreement(False, "publicKeyOcmf and publicKey are not the same key; do not trust either.")
    return KeyAgreement(True, "publicKeyOcmf and publicKey are the same key.")


# ---------------------------------------------------------------- signature


@dataclass(frozen=True, slots=True)
class _Algorithm:
    row: Curve
    hash: hashes.HashAlgorithm


def _algorithm(name: str) -> _Algorithm:
    parts = name.strip().split("-")
    row = CURVES.get(parts[1].lower()) if len(parts) == 3 else None
    digest = HASHES.get(parts[2].lower()) if len(parts) == 3 else None
    if parts[0].upper() != "ECDSA" or row is None or digest is None or row.curve is None:
        raise _Stop(Verdict.UNSUPPORTED_ALGORITHM, f"It names {name[:60]!r}.")
    return _Algorithm(row, digest)


def _der_length(data: bytes, at: int) -> tuple[int, int] | None:
    """Length octets at ``at``: (length, position after them); None when they are not sound."""
    if at >= len(data):
        return None
    first = data[at]
    if first < 0x80:
        return first, at + 1
    count = first & 0x7F
    if not 1 <= count <= 3 or at + 1 + count > len(data):
        return None
    return int.from_bytes(data[at + 1 : at + 1 + count], "big"), at + 1 + count


def _der_pair(data: bytes) -> tuple[int, int] | None:
    """A DER SEQUENCE of exactly two INTEGERs, both read as unsigned; missing and needless pads accepted."""
    if data[:1] != b"\x30" or (outer := _der_length(data, 1)) is None:
        return None
    length, at = outer
    if at + length != len(data):
        return None
    numbers: list[int] = []
    while at < len(data):
        if len(numbers) == 2 or data[at] != 0x02 or (inner := _der_length(data, at + 1)) is None:
            return None
        size, at = inner
        if size == 0 or at + size > len(data):
            return None
        numbers.append(int.from_bytes(data[at : at + size], "big"))
        at += size
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def _signature(section: Mapping[str, Any], size: int) -> tuple[int, int]:
    """Section 14 step 5. SE says which encoding comes first; the other is tried too, as producers err."""
    encoding = section.get("SE", "hex")
    if not isinstance(encoding, str) or encoding.strip().lower() not in ("hex", "base64"):
        raise _Stop(Verdict.MALFORMED, "The signature's encoding (SE) is neither hex nor base64.")
    packed = re.sub(r"\s+", "", section["SD"])
    decoders = (_hex, _base64) if encoding.strip().lower() == "hex" else (_base64, _hex)
    for decode in decoders:
        data = decode(packed)
        if data is None:
            continue
        pair = _der_pair(data)
        if pair is None and len(data) == 2 * size:
            pair = int.from_bytes(data[:size], "big"), int.from_bytes(data[size:], "big")
        if pair is not None:
            return pair
    raise _Stop(Verdict.MALFORMED, "The signature (SD) is neither a DER pair of numbers nor r followed by s.")


def _is_genuine(key: ec.EllipticCurvePublicKey, pair: tuple[int, int], signed: bytes, algorithm: _Algorithm) -> bool:
    if not all(0 < number.bit_length() <= 8 * algorithm.row.size for number in pair):
        return False
    try:
        key.verify(encode_dss_signature(*pair), signed, ec.ECDSA(algorithm.hash))
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm:
        raise _Stop(Verdict.UNSUPPORTED_ALGORITHM, "The cryptographic library here cannot check it.") from None
    return True


# ---------------------------------------------------------------- the record as text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Sections:
    """The parts of a record. ``load`` fills them in order, so that a failure leaves what was read before it."""

    def __init__(self) -> None:
        self.signed: bytes | None = None
        self.record: Record | None = None
        self.signature: dict[str, Any] = {}
        self.algorithm = ""
        self.embedded = ""
        self.repeated: list[str] = []

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs) and len(self.repeated) < 8:
            seen: set[str] = set()
            for name, _item in pairs:
                if name in seen:
                    self.repeated.append(_text(name)[:40])
                    break
                seen.add(name)
        return found

    def _object(self, text: str, at: int, what: str) -> tuple[dict[str, Any], int]:
        decoder = json.JSONDecoder(
            parse_float=_json_number,
            parse_int=_json_number,
            parse_constant=_refuse_constant,
            object_pairs_hook=self._pairs,
        )
        if text[at : at + 1] != "{":
            raise _Stop(Verdict.MALFORMED, f"The {what} section is not a JSON object.")
        try:
            found, end = decoder.raw_decode(text, at)
        except RecursionError:
            raise _Stop(Verdict.MALFORMED, f"The {what} section is nested too deeply.") from None
        except ValueError as exc:
            raise _Stop(Verdict.MALFORMED, f"The {what} section is not sound JSON: {str(exc)[:80]}.") from None
        return found, end

    def load(self, received: bytes | str) -> None:
        text = _decode(received)
        if not text.startswith(PREFIX):
            raise _Stop(Verdict.MALFORMED, "It does not begin with OCMF and a bar.")
        payload, end = self._object(text, _skip(text, len(PREFIX)), "payload")
        bar = _skip(text, end)
        if text[bar : bar + 1] != "|":
            raise _Stop(Verdict.MALFORMED, "There is no bar after the payload section.")
        self.signed = text[len(PREFIX) : bar].encode()
        self.record = _record(payload)
        self.signature, end = self._object(text, _skip(text, bar + 1), "signature")
        rest = text[_skip(text, end) :]
        if rest and not rest.startswith("|"):
            raise _Stop(Verdict.MALFORMED, "Something other than a bar follows the signature section.")
        self.embedded = rest[1:].strip()
        if not isinstance(self.signature.get("SD"), str):
            raise _Stop(Verdict.MALFORMED, "The signature section holds no signature text (SD).")
        named = self.signature.get("SA", DEFAULT_ALGORITHM)
        if not isinstance(named, str):
            raise _Stop(Verdict.MALFORMED, "The name of the algorithm (SA) is not a text.")
        self.algorithm = _text(named)


def _skip(text: str, at: int) -> int:
    found = JSON_SPACE.match(text, at)
    return at if found is None else found.end()


def _decode(received: bytes | str) -> str:
    if len(received) > MAX_RECORD_BYTES:
        raise _Stop(Verdict.MALFORMED, "It is larger than 1 MiB.")
    try:
        text = received.decode() if isinstance(received, bytes) else received.encode().decode()
    except UnicodeError:
        raise _Stop(Verdict.MALFORMED, "It is not UTF-8 text.") from None
    return text.strip(OUTER_SPACE).removeprefix("\ufeff").strip(OUTER_SPACE)


# ---------------------------------------------------------------- results


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The verdict on one record and what it states.

    ``signed`` and ``record`` are set as soon as the payload could be cut out, whatever the verdict; only after VALID
    do they mean anything. ``findings`` exist only after VALID; ``notes`` are remarks that do not forbid billing.
    """

    verdict: Verdict
    detail: str = ""
    algorithm: str = ""  # SA as written, or the default; "" when the record was not read so far
    signed: bytes | None = None
    record: Record | None = None
    statement: Statement = field(default_factory=Statement)
    trust: Trust = Trust.NONE
    key_origin: KeyOrigin = KeyOrigin.NONE
    key_point: bytes = b""  # 04||X||Y of the key used
    findings: tuple[PlausibilityFinding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Verdict and reason for a person."""
        return f"{self.verdict.sentence} {self.detail}".rstrip()

    @property
    def billable(self) -> bool:
        """Validly signed and without a finding (section 14)."""
        return self.verdict is Verdict.VALID and not self.findings

    @property
    def meter_serial(self) -> str:
        return "" if self.record is None else self.record.meter_serial

    @property
    def pagination(self) -> str:
        return "" if self.record is None else self.record.pagination

    @property
    def signed_sha256(self) -> str | None:
        """SHA-256 of the signed bytes in lower-case hex."""
        return None if self.signed is None else hashlib.sha256(self.signed).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; decimals are texts with every digit."""
        result: dict[str, Any] = {
            "verdict": self.verdict.value,
            "sentence": self.sentence,
            "algorithm": self.algorithm,
            "trust": self.trust.value,
            "trust_sentence": self.trust.sentence,
            "key_origin": self.key_origin.value,
            "key_point": self.key_point.hex().upper(),
            "billable": self.billable,
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
            "signed_bytes_len": None if self.signed is None else len(self.signed),
            "signed_bytes_sha256": self.signed_sha256,
        }
        if (record := self.record) is not None:
            result |= {
                "format_version": record.format_version,
                "gateway": record.gateway,
                "gateway_serial": record.gateway_serial,
                "gateway_version": record.gateway_version,
                "pagination": record.pagination,
                "meter_vendor": record.meter_vendor,
                "meter_model": record.meter_model,
                "meter_serial": record.meter_serial,
                "meter_firmware": record.meter_firmware,
                "user_assigned": record.user_assigned,
                "identification_level": record.identification_level,
                "identification_flags": list(record.identification_flags),
                "identification_type": record.identification_type,
                "identification_data": record.identification_data,
                "tariff_text": record.tariff_text,
                "controller_firmware": record.controller_firmware,
                "charge_point_type": record.charge_point_type,
                "charge_point": record.charge_point,
                "cable": None if record.cable is None else {name: _plain(item) for name, item in record.cable.items()},
                "readings": [reading.to_json() for reading in record.readings],
            }
            result |= self.statement.to_json()
        return result


def verify(
    received: bytes | str,
    public_key: str | None = None,
    *,
    origin: KeyOrigin = KeyOrigin.METER,
    trusted: Iterable[str] = (),
) -> Verification:
    """Verify one OCMF record.

    Args:
        received: the record exactly as received; bytes are taken as UTF-8.
        public_key: the caller's key text in any form of section 14 step 6; it wins over an embedded one. None or
            blank: the embedded key is used.
        origin: where the caller's key came from; decides the statement of trust.
        trusted: key texts known from the meter's print or its commissioning; a used key that equals one of them is
            authentic wherever it came from. Unreadable ones are ignored.
    Returns:
        the verdict with all that could be read. Nothing that ``received`` or ``public_key`` hold raises.
    Source: specs/lem-dcbm.md section 14, steps 1 to 8 and the order of precedence.
    """
    parts = _Sections()
    key: ec.EllipticCurvePublicKey | None = None
    used = KeyOrigin.NONE
    trust = Trust.NONE
    verdict, detail = Verdict.VALID, ""
    try:
        parts.load(received)
        algorithm = _algorithm(parts.algorithm)
        pair = _signature(parts.signature, algorithm.row.size)
        given = public_key if public_key is not None and public_key.strip() else ""
        if not given and not parts.embedded:
            raise _Stop(Verdict.NO_KEY, "")
        used = origin if given else KeyOrigin.EMBEDDED
        key = _load_key(given or parts.embedded, algorithm.row)
        if not _is_genuine(key, pair, parts.signed or b"", algorithm):
            raise _Stop(Verdict.INVALID_SIGNATURE, "")
        trust = _trust(key, used, trusted, algorithm.row)
    except _Stop as stop:
        verdict, detail = stop.verdict, stop.detail
    record = parts.record
    statement = Statement() if record is None else read_statement(record.readings)
    findings = tuple(_judge([record], statement)) if record is not None and verdict is Verdict.VALID else ()
    return Verification(
        verdict=verdict,
        detail=detail,
        algorithm=parts.algorithm,
        signed=parts.signed,
        record=record,
        statement=statement,
        trust=trust,
        key_origin=used,
        key_point=b"" if key is None else _point(key),
        findings=findings,
        notes=tuple(f"The key {name!r} stands twice in one object; the last one counts." for name in parts.repeated),
    )


def _trust(key: ec.EllipticCurvePublicKey, used: KeyOrigin, trusted: Iterable[str], row: Curve) -> Trust:
    if used in (KeyOrigin.PRINTED, KeyOrigin.COMMISSIONED):
        return Trust.AUTHENTIC
    for text in trusted:
        try:
            if _point(_load_key(text, row)) == _point(key):
                return Trust.AUTHENTIC
        except _Stop:
            continue
    return Trust.EMBEDDED if used is KeyOrigin.EMBEDDED else Trust.INTEGRITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """A transaction whose begin and end came in two records (section 14, last paragraph before the libraries)."""

    begin: Verification
    end: Verification
    statement: Statement
    findings: tuple[PlausibilityFinding, ...]

    @property
    def verdict(self) -> Verdict:
        """VALID when both are, else that of the first record that is not."""
        return self.begin.verdict if self.begin.verdict is not Verdict.VALID else self.end.verdict

    @property
    def sentence(self) -> str:
        if self.verdict is Verdict.VALID:
            return "Both signatures are genuine."
        name, bad = ("begin", self.begin) if self.begin.verdict is not Verdict.VALID else ("end", self.end)
        return f"The {name} record: {bad.sentence}"

    @property
    def billable(self) -> bool:
        return self.verdict is Verdict.VALID and not self.findings

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "sentence": self.sentence,
            "billable": self.billable,
            "findings": [finding.to_json() for finding in self.findings],
            **self.statement.to_json(),
            "begin_record": self.begin.to_json(),
            "end_record": self.end.to_json(),
        }


def combine(begin: Verification, end: Verification) -> Combined:
    """Combine the verified begin record and the verified end record of one transaction.

    Findings are judged only when both are VALID: serials must be equal, the end's pagination must be the begin's plus
    one with the same letter, both must be signed by one key, and the two together must pass the table of section 14.
    """
    records = [side.record for side in (begin, end) if side.record is not None]
    statement = read_statement([reading for record in records for reading in record.readings])
    findings: list[PlausibilityFinding] = []
    if begin.verdict is Verdict.VALID and end.verdict is Verdict.VALID:
        if not begin.meter_serial or begin.meter_serial != end.meter_serial:
            findings.append(
                PlausibilityFinding(
                    FindingCode.SERIAL_DIFFERS,
                    f"The records are of different meters: {begin.meter_serial[:40] or 'no serial'} and "
                    f"{end.meter_serial[:40] or 'no serial'}.",
                )
            )
        if not _follows(begin.pagination, end.pagination):
            findings.append(
                PlausibilityFinding(
                    FindingCode.PAGINATION_GAP,
                    f"Pagination {end.pagination[:24] or '(none)'} does not follow "
                    f"{begin.pagination[:24] or '(none)'}.",
                )
            )
        if begin.key_point != end.key_point:
            findings.append(PlausibilityFinding(FindingCode.KEY_DIFFERS, "Two different keys signed the records."))
        findings.extend(_judge(records, statement))
    return Combined(begin=begin, end=end, statement=statement, findings=tuple(findings))


def _follows(first: str, second: str) -> bool:
    one, two = _PAGINATION.fullmatch(first), _PAGINATION.fullmatch(second)
    return one is not None and two is not None and one[1] == two[1] and int(two[2]) == int(one[2]) + 1
