"""A LEM DCBM 400/600 over real HTTP and HTTPS, with faults on demand.

Source of every rule: ``shared/specs/lem-dcbm.md`` (sections 3, 4, 7 to 10, 13, 16). Bodies, records and judgements are
built here from the specification; the adapter's codec is not used. Where the specification says "not documented",
the choice made here stands in a comment beginning with "Choice:". Behaviour under a fault is named in ``FAULTS``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
import ssl
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self
from urllib.parse import unquote

import h11
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from app.errors import ConfigError, LinkError, LinkReason
from app.simulators._http import (
    CLOSE_S,
    HOST,
    MAX_BODY,
    REQUEST_S,
    FaultKind,
    abort,
    fault_help,
    one_of,
    reset,
    yes,
)
from app.simulators.catalog import Announce, SimOptions

# ---------------------------------------------------------------------------------------------------------------- facts

SYNC_VALID: Final = timedelta(hours=48)  # spec 7
UNSAFE_S: Final = 120  # spec 3.4: settings of the first two minutes after power-up may be lost
ID_SEARCH_DEPTH: Final = 840  # spec 3.5
MAX_CONNECTIONS: Final = 64  # an embedded server has few; more are dropped at once
REBIND_S: Final = 10.0  # longest wait for our own port to be free again after it was closed
NTP_EVERY_S: Final = 3600  # Choice: the unit of syncPeriod is unknown (spec 19)
OVERTEMPERATURE_C: Final = 100.0  # Choice: the level of the flag is not published
EVSE_BYTES: Final = 37
CLIENT_BYTES: Final = 37
USER_DATA_BYTES: Final = 128
TARIFF_TEXT_CHARS: Final = 250

ID_TYPES: Final = (
    "NONE", "DENIED", "UNDEFINED", "ISO14443", "ISO15693", "EMAID", "EVCCID", "EVCOID", "ISO7812", "CARD_TXN_NR",
    "CENTRAL", "CENTRAL_1", "CENTRAL_2", "LOCAL", "LOCAL_1", "LOCAL_2", "PHONE_NUMBER", "KEY_CODE",
)  # fmt: skip

# name, nominal value; the index is the bit (spec 9)
STATUS_BITS: Final = (
    ("suLinkStatusIsOk", True),
    ("muFatalErrorOccured", False),
    ("transactionIsOnGoing", False),
    ("tamperingIsDetected", False),
    ("timeSyncStatusIsOk", True),
    ("overTemperatureIsDetected", False),
    ("reversedVoltage", False),
    ("suMeasureFailureOccurred", False),
)
ON_GOING: Final = 4
# name -> bit. Choice: 9 to 11 are not in our sources (spec 9).
ERROR_BITS: Final[Mapping[str, int]] = {
    "muInitIsFailed": 0,
    "suStateIsInvalid": 1,
    "versionCheckIsFailed": 2,
    "muRngInitIsFailed": 3,
    "muDataIntegrityIsFailed": 4,
    "muFwIntegrityIsFailed": 5,
    "suIntegrityIsFailed": 6,
    "logbookIntegrityIsFailed": 8,
    "logbookIsFull": 9,
    "memoryAccessIsFailed": 10,
    "muStateIsFailed": 11,
}
# cableSpName, resistance in mOhm; the index is the cable id (spec 3.3). Choice: the names of the six free rows.
CABLES: Final = (
    ("No_Comp", 0), ("2mR_Comp", 2), ("4mR_Comp", 4), ("6mR_Comp", 6),
    ("No_Comp", 0), ("No_Comp", 0), ("No_Comp", 0), ("No_Comp", 0),
)  # fmt: skip
MONTHS: Final = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ORDERS: Final = ("first", "second", "third", "fourth", "last")
DST_OFF: Final[Mapping[str, Any]] = {
    "activated": False,
    "offset": 60,
    "start": {"order": "last", "day": "sunday", "month": "march", "hour": "T01:00Z"},
    "end": {"order": "last", "day": "sunday", "month": "october", "hour": "T01:00Z"},
}
REASONS: Final[Mapping[int, str]] = {
    200: "OK", 201: "Created", 302: "Found", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 413: "Payload Too Large", 422: "Unprocessable Entity",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip

# --------------------------------------------------------------------------------------------------------------- faults


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _is_code(text: str) -> bool:
    return _is_count(text) and 200 <= int(text) <= 599


def _is_text(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_shift(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,9}", text) is not None


FAULT_KINDS: Final[Mapping[str, FaultKind]] = {
    # the wire
    "silence": FaultKind("take the request, carry nothing out, never answer"),
    "refuse": FaultKind("close the port: connections are refused", lasting=True),
    "reset": FaultKind("carry out, send half of the body, then reset the connection"),
    "truncate": FaultKind("carry out, announce the whole body, send half of it, then close"),
    "lose-answer": FaultKind("carry out, then close without an answer"),
    "not-http": FaultKind("answer with bytes that are not HTTP"),
    "wrong-length": FaultKind("Content-Length is wrong by this many bytes", "10", _is_shift),
    "duplicate": FaultKind("send the bytes of the answer twice"),
    "delay": FaultKind("carry out at once, answer this many seconds late", "3", _is_number),
    "slow-loris": FaultKind("send one byte per this many seconds", "1", _is_number),
    "huge": FaultKind("a body of this many bytes", "100000000", _is_count),
    "endless": FaultKind("a body that never ends"),
    # status codes and bodies
    "redirect": FaultKind("302 to this address, nothing carried out", "/v1/elsewhere", _is_text),
    "http-error": FaultKind("answer with this status code, nothing carried out", "500", _is_code),
    "legal-missing": FaultKind("GET legal is 404; with =all POST and PUT too", "", one_of("", "all"), lasting=True),
    "malformed-json": FaultKind("cut the JSON text so that it cannot be parsed"),
    "nan": FaultKind("voltage and power are this bare word", "NaN", one_of("NaN", "Infinity", "-Infinity")),
    "wrong-type": FaultKind(
        "numbers and booleans become string | bool | null; or the whole body becomes list | text | number | nothing",
        "string",
        one_of("string", "bool", "null", "list", "text", "number", "nothing"),
    ),
    "not-running": FaultKind("start answers 201 with running false, nothing starts"),
    "start-200": FaultKind(
        "start answers 200 and nothing starts; with =started it does start", "", one_of("", "started")
    ),
    "result-zero": FaultKind("settings answer result 0, nothing is changed"),
    "empty-ocmf": FaultKind("the OCMF body is empty"),
    "flip-ocmf": FaultKind("one digit of the first OCMF reading is changed, the signature is not"),
    # the meter itself
    "overtemp": FaultKind("the sensors heat up by this many kelvin per second", "2", _is_number, lasting=True),
    "tampering": FaultKind("tamperingIsDetected", lasting=True),
    "link-down": FaultKind("suLinkStatusIsOk is false", lasting=True),
    "reversed-voltage": FaultKind("reversedVoltage; stays until a reboot", lasting=True),
    "measure-failure": FaultKind("suMeasureFailureOccurred", lasting=True),
    "fatal-error": FaultKind(
        "this error flag is set; stays until a reboot", "suStateIsInvalid", lambda t: t in ERROR_BITS, lasting=True
    ),
    "clock-unsynced": FaultKind(
        "the time sync is lost; a sync cures it, unless =stuck", "", one_of("", "stuck"), lasting=True
    ),
    "running": FaultKind(
        "a transaction with this id is running, started by somebody else", "left-over",
        lambda t: bool(t) and _is_text(t) and len(t) <= EVSE_BYTES, lasting=True,
    ),
    "reboot": FaultKind(
        "once: drop connections, end the transaction, lose unsaved settings and the load; =http forgets TLS too",
        "", one_of("", "http"), lasting=True,
    ),
    # TLS
    "cert-wrong": FaultKind("TLS shows the certificate of another meter", lasting=True),
    "cert-expired": FaultKind("the meter's certificate is expired", lasting=True),
}  # fmt: skip

FAULTS: Final[Mapping[str, str]] = fault_help(FAULT_KINDS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""

FAULT_SYNTAX: Final = "name[=value][@METHOD/path][#count], for example http-error=403@POST/v1/legal#2"

_SPEC = re.compile(
    r"(?P<name>[a-z0-9-]+)(?:=(?P<value>[^@#]*))?(?:@(?P<method>[A-Z]*) ?(?P<path>/[^#]*)?)?(?:#(?P<count>[0-9]{1,9}))?"
)


@dataclass(slots=True)
class _Fault:
    name: str
    value: str
    method: str
    path: str
    left: int | None  # how often it still strikes; None: always

    @property
    def scope(self) -> tuple[str, str, str]:
        return self.name, self.method, self.path

    def text(self) -> str:
        where = f"@{self.method}{self.path}" if self.method or self.path else ""
        count = "" if self.left is None else f"#{self.left}"
        return f"{self.name}{'=' if self.value else ''}{self.value}{where}{count}"

    def meets(self, method: str, path: str) -> bool:
        if self.method and self.method != method:
            return False
        return not self.path or path == self.path or path.startswith(self.path.rstrip("/") + "/")


class Faults:
    """The faults in force, settable at run time.

    ``changed`` is called after every change with the name of the fault (empty after a general clear).
    """

    def __init__(self, changed: Callable[[str, str], None] = lambda name, value: None) -> None:
        self._active: list[_Fault] = []
        self._changed = changed

    def set(self, spec: str) -> None:
        """Put a fault in force: ``name[=value][@METHOD/path][#count]``.

        Without value the fault's default holds; without route it strikes every request, without count every time.
        The same fault on the same route is replaced.

        Raises:
            ConfigError: unknown fault, value outside its range, or a route for a fault of the meter itself.
        """
        match = _SPEC.fullmatch(spec.strip())
        kind = FAULT_KINDS.get(match["name"]) if match else None
        if match is None or kind is None:
            raise ConfigError(f"{spec!r} is not a fault.", key="fault", expected=f"{FAULT_SYNTAX}; see sim list")
        name = match["name"]
        value = kind.default if match["value"] is None else match["value"]
        if not kind.check(value):
            raise ConfigError(f"{value!r} is not a value for this fault.", key=f"fault {name}", expected=kind.help)
        fault = _Fault(
            name, value, match["method"] or "", match["path"] or "", int(match["count"]) if match["count"] else None
        )
        if kind.lasting and (fault.method or fault.path or fault.left is not None):
            raise ConfigError("This fault takes no route and no count.", key=f"fault {name}", expected="name[=value]")
        if name != "reboot":  # the only one that happens instead of lasting
            self._active = [other for other in self._active if other.scope != fault.scope]
            self._active.append(fault)
        self._changed(name, value)

    def clear(self, *names: str) -> None:
        """End these faults, or all of them when none is named. What a fault has broken may stay broken (see FAULTS).

        Raises:
            ConfigError: unknown fault.
        """
        for name in names:
            if name not in FAULT_KINDS:
                raise ConfigError(f"{name!r} is not a fault.", key="fault", expected="see sim list")
        self._active = [fault for fault in self._active if names and fault.name not in names]
        self._changed("", "")

    def active(self) -> list[str]:
        """The faults in force, in the syntax of ``set``, with the counts that are left."""
        return [fault.text() for fault in self._active]

    def value(self, name: str) -> str | None:
        """Value of a fault of the meter itself, None when it is not in force."""
        return next((fault.value for fault in self._active if fault.name == name), None)

    def take(self, name: str, method: str, path: str) -> str | None:
        """Value of a fault if it strikes this request, else None. Counts down, and ends it at 0."""
        for fault in self._active:
            if fault.name == name and fault.meets(method, path):
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left <= 0:
                        self._active.remove(fault)
                return fault.value
        return None


# ----------------------------------------------------------------------------------------------------------------- JSON


class Word(str):
    """Text written into JSON as it is, without quotes: ``NaN`` and other things JSON does not have."""

    __slots__ = ()


def to_json(value: object) -> str:
    """Compact JSON text; decimals keep every digit they have (``Decimal("57.580")`` -> ``57.580``)."""
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{to_json(str(key))}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(to_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _mistyped(value: object, how: str) -> object:
    """A body with wrong types; see the fault ``wrong-type``."""
    whole: dict[str, object] = {"list": [value], "text": "unexpected", "number": 42, "nothing": None}
    if how in whole:
        return whole[how]
    if isinstance(value, Mapping):
        return {key: _mistyped(item, how) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mistyped(item, how) for item in value]
    if how == "null":
        return None
    if isinstance(value, (bool, int, Decimal)):
        return to_json(value) if how == "string" else True
    return True if how == "bool" else value


# -------------------------------------------------------------------------------------------------------------- physics


class PowerPath:
    """Voltage and current that ramp in straight lines, and what follows from them.

    Energy is the exact integral of their product (fractions, no rounding), booked to import while the current is
    positive and to export while it is negative; registers are cut to 0.001 kWh when read, as a meter does.
    Temperatures follow the square of the current with one time constant.
    """

    VOLT_PER_S: Final = Fraction(200)
    AMPERE_PER_S: Final = Fraction(50)
    AMBIENT_C: Final = 24.0
    KELVIN_PER_A2: Final = (1.1e-4, 1.0e-4)  # sensors H and L
    TIME_CONSTANT_S: Final = 180.0
    WATT_SECONDS: Final = 3_600_000  # per kWh

    def __init__(self, energy_import_kwh: Decimal, energy_export_kwh: Decimal) -> None:
        self.voltage = Fraction(0)
        self.current = Fraction(0)
        self._import = Fraction(energy_import_kwh)
        self._export = Fraction(energy_export_kwh)
        self._excess = [0.0, 0.0]  # kelvin above ambient by load
        self.heat_k = 0.0  # kelvin added by the fault overtemp

    @property
    def temperatures_c(self) -> tuple[float, float]:
        """Sensors H and L, degrees Celsius."""
        high, low = (self.AMBIENT_C + excess + self.heat_k for excess in self._excess)
        return high, low

    @property
    def energy_import_kwh(self) -> Decimal:
        """Import register, kWh with three decimals, cut."""
        return _cut(self._import)

    @property
    def energy_export_kwh(self) -> Decimal:
        """Export register, kWh with three decimals, cut."""
        return _cut(self._export)

    def drop(self) -> None:
        """Load off at once, as by a power failure."""
        self.voltage = self.current = Fraction(0)

    def advance(self, seconds: Fraction, voltage: Fraction, current: Fraction, heat_k_per_s: float) -> None:
        """Let time pass with these set points (V, A; negative current exports)."""
        left = seconds
        while left > 0:
            rise_v, slope_v = _slope(self.voltage, voltage, self.VOLT_PER_S)
            rise_i, slope_i = _slope(self.current, current, self.AMPERE_PER_S)
            step = min(s for s in (left, rise_v, rise_i, self._to_zero(slope_i)) if s is not None)
            v, i = self.voltage, self.current
            energy = v * i * step + (v * slope_i + i * slope_v) * step**2 / 2 + slope_v * slope_i * step**3 / 3
            if energy >= 0:
                self._import += energy / self.WATT_SECONDS
            else:
                self._export -= energy / self.WATT_SECONDS
            square = float(i * i + i * slope_i * step + slope_i * slope_i * step * step / 3)
            keep = math.exp(-float(step) / self.TIME_CONSTANT_S)
            for n, factor in enumerate(self.KELVIN_PER_A2):
                self._excess[n] = self._excess[n] * keep + factor * square * (1 - keep)
            self.heat_k = self.heat_k + heat_k_per_s * float(step) if heat_k_per_s else self.heat_k * keep
            self.voltage = v + slope_v * step
            self.current = i + slope_i * step
            left -= step

    def _to_zero(self, slope: Fraction) -> Fraction | None:
        """Seconds until the current changes its sign; None when it does not."""
        return -self.current / slope if self.current * slope < 0 else None


def _slope(value: Fraction, target: Fraction, rate: Fraction) -> tuple[Fraction | None, Fraction]:
    """Seconds until the target is reached (None: it is), and the slope until then."""
    gap = target - value
    if not gap:
        return None, Fraction(0)
    return abs(gap) / rate, rate if gap > 0 else -rate


def _cut(value: Fraction) -> Decimal:
    return Decimal(value.numerator * 1000 // value.denominator).scaleb(-3)


def _round(value: Fraction, places: int) -> Decimal:
    return Decimal(round(value * 10**places)).scaleb(-places)


# ----------------------------------------------------------------------------------------------------------------- time


def _minutes(zone: str) -> int | None:
    """Offset of ``±HH:MM`` in minutes, None when it is not allowed (spec 2: -11..+14 h, quarters)."""
    match = re.fullmatch(r"([+-])([0-9]{2}):(00|15|30|45)", zone)
    if match is None:
        return None
    minutes = (int(match[2]) * 60 + int(match[3])) * (-1 if match[1] == "-" else 1)
    return minutes if -11 * 60 <= minutes <= 14 * 60 else None


def _good_dst(dst: object) -> bool:
    if not isinstance(dst, dict) or type(dst.get("activated")) is not bool or type(dst.get("offset")) is not int:
        return False
    for end in (dst.get("start"), dst.get("end")):
        if not isinstance(end, dict):
            return False
        hour = end.get("hour")
        if end.get("order") not in ORDERS or end.get("day") not in DAYS or end.get("month") not in MONTHS:
            return False
        if not isinstance(hour, str) or not re.fullmatch(r"T([01][0-9]|2[0-3]):[0-5][0-9]Z", hour):
            return False
    return True


def _turn(rule: Mapping[str, str], year: int) -> datetime:
    """Moment in UTC at which a DST rule strikes in this year."""
    month = MONTHS.index(rule["month"]) + 1
    day = DAYS.index(rule["day"])
    clock = timedelta(hours=int(rule["hour"][1:3]), minutes=int(rule["hour"][4:6]))
    if rule["order"] == "last":
        after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        last = after - timedelta(days=1)
        return last - timedelta(days=(last.weekday() - day) % 7) + clock
    first = datetime(year, month, 1, tzinfo=UTC)
    return first + timedelta(days=(day - first.weekday()) % 7 + 7 * ORDERS.index(rule["order"])) + clock


def local_time(moment: datetime, zone: str, dst: Mapping[str, Any]) -> datetime:
    """The meter's wall clock: zone ``±HH:MM`` and its DST rule applied to a moment in UTC."""
    minutes = _minutes(zone) or 0
    if dst["activated"]:
        start, end = _turn(dst["start"], moment.year), _turn(dst["end"], moment.year)
        summer = start <= moment < end if start < end else not end <= moment < start
        minutes += dst["offset"] if summer else 0
    return moment.astimezone(timezone(timedelta(minutes=minutes)))


def _seconds(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


# --------------------------------------------------------------------------------------------------------- certificates

CertificateKind = Literal["own", "own-expired", "other"]
Speech = Literal["http", "own", "own-expired", "other"]  # what the port speaks: plain, or TLS with this certificate


@cache
def _rsa_key(owner: str) -> rsa.RSAPrivateKey:
    # 1024 bit because the real meter has it (spec 10); made at run time, good for nothing else.
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


@cache
def certificate(kind: CertificateKind) -> x509.Certificate:
    """A self-signed RSA-1024 certificate, CA true, no subject alternative name, made once per process (spec 10)."""
    key = _rsa_key("other" if kind == "other" else "own")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"DCBM simulator {kind.partition('-')[0]}")])
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start, end = today - timedelta(days=365), today + timedelta(days=3650)
    if kind == "own-expired":
        start, end = today - timedelta(days=3650), today - timedelta(days=365)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def certificate_pem(kind: CertificateKind) -> str:
    """PEM text as a well-made file would hold it; the endpoint breaks it (spec 3.6)."""
    return certificate(kind).public_bytes(serialization.Encoding.PEM).decode()


@cache
def _server_context(kind: CertificateKind) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:@SECLEVEL=1")  # else our own short key is refused
    key = _rsa_key("other" if kind == "other" else "own").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.TemporaryDirectory() as folder:  # ssl takes files only; private to us and gone at once
        file = Path(folder) / "pair.pem"
        file.write_bytes(certificate_pem(kind).encode() + key)
        context.load_cert_chain(file)
    return context


# ---------------------------------------------------------------------------------------------------------------- state


@dataclass(frozen=True, slots=True, kw_only=True)
class LemDcbmConfig:
    """What is fixed when the meter is built.

    Simulated time runs ``time_scale`` times as fast as ``monotonic`` (seconds) and begins at ``start_time`` (aware;
    None: now). Voltage in V, current in A (negative exports), energies in kWh, ``uptime_s`` is the time since power-up.
    """

    port: int = 0
    meter_id: str = "12024072805"
    firmware: str = "0.1.4.0"  # 0.2.1.0 speaks v2 as well
    faults: tuple[str, ...] = ()
    control: bool = False  # offer POST /_sim/faults
    seed: int = 0
    # time
    time_scale: float = 1.0
    monotonic: Callable[[], float] = time.monotonic
    start_time: datetime | None = None
    uptime_s: float = 0.0
    synced_at_start: bool = True  # a sync outlives a power failure (spec 7)
    clock_offset_s: float = 0.0  # the meter's clock minus the simulated time
    ntp_reachable: bool = True
    # load
    voltage: Decimal = Decimal("398.12")
    current: Decimal = Decimal("124.5")
    load: Literal["transaction", "always", "off"] = "transaction"  # when it is on
    ripple: Decimal = Decimal(0)  # share of the set point by which the load wanders
    energy_import: Decimal = Decimal("196.614")
    energy_export: Decimal = Decimal("4.405")
    # settings at the first power-up
    tls_on: bool = False
    time_zone: str = "+00:00"
    identification_type: int = 3
    lose_early_settings: bool = True  # settings of the first two minutes do not survive a reboot
    # memory
    history: int = 2  # finished transactions in the memory at the start
    memory_size: int = 20399
    logbook_size: int = 40_000
    logbook_delay_s: float = 0.0
    # judgement
    refusal_code: int = 403  # Choice: the meter's own codes are not published (spec 19), it is only not 201
    strict_content_type: bool = False  # refuse a GET without JSON content type too
    reboot_s: float = 0.1  # seconds of real time without a listening port

    @property
    def v2(self) -> bool:
        """Whether the v2 routes exist: four parts and the second greater than 1 (spec 3.1)."""
        parts = self.firmware.split(".")
        return len(parts) == 4 and parts[1].isdigit() and int(parts[1]) > 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``/v1/settings`` holds, and the clock, which is set through it."""

    clock_offset: timedelta
    last_sync: datetime | None  # in simulated time
    zone: str
    dst: Mapping[str, Any]
    servers: tuple[tuple[str, int], tuple[str, int]]
    sync_period: int
    ntp: bool
    tls_on: bool
    id_type: int


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One transaction in the memory. Times are the meter's, registers kWh; ``status`` collects flags (spec 9)."""

    number: int
    evse_id: str
    transaction_id: str
    client_id: str
    tariff_id: int
    cable_id: int
    user_data: str
    tariff_text: str | None  # None: started by a v1 body
    id_type: int
    start: datetime
    start_quality: str
    start_import: Decimal
    start_export: Decimal
    status: int
    stop: datetime | None = None
    legal: Mapping[str, Any] = field(default_factory=dict)
    ocmf: str = ""

    @property
    def running(self) -> bool:
        return self.stop is None


class _End(NamedTuple):
    """Moment and registers (kWh) at which a reading is taken."""

    time: datetime
    energy_import: Decimal
    energy_export: Decimal


class Recorded(NamedTuple):
    """One request as it came: method, path with query, body."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> Mapping[str, str]:
        pairs = (part.partition("=") for part in self.target.partition("?")[2].split("&") if part)
        return {unquote(key): unquote(value) for key, _, value in pairs}  # a plus stays a plus


@dataclass(slots=True)
class _Answer:
    status: int
    value: object = None
    text: str | None = None  # plain text instead of JSON
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0


class _Refusal(Exception):
    """A request the meter does not carry out."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(str(detail))
        self.answer = _Answer(status, {"detail": detail})


def _missing(*where: str) -> _Refusal:
    return _Refusal(422, [{"type": "missing", "loc": ["body", *where], "msg": "Field required"}])


def _need(body: Mapping[str, Any], name: str, kind: type, prefix: tuple[str, ...] = ()) -> Any:
    """Member of exactly this type, or a 422."""
    if name not in body:
        raise _missing(*prefix, name)
    if type(body[name]) is not kind:
        raise _Refusal(422, [{"type": f"{kind.__name__}_type", "loc": ["body", *prefix, name]}])
    return body[name]


# ------------------------------------------------------------------------------------------------------------ simulator


class LemDcbmSimulator:
    """The meter: ``async with LemDcbmSimulator(config) as sim``, then ``sim.url`` answers.

    ``requests`` holds the last 1000 requests as (method, path with query, body), ``headers`` their header fields with
    lower-case names, ``faults`` the faults in force. Change faults from the loop that runs the simulator.

    Raises (on entering):
        ConfigError: a fault or setting is wrong.
        LinkError: the port cannot be opened.
    """

    host: Final = HOST

    def __init__(self, config: LemDcbmConfig | None = None) -> None:
        self.config = config or LemDcbmConfig()
        if self.config.time_scale <= 0:
            raise ConfigError("Time cannot stand still.", key="time_scale", expected="a number above 0")
        if _minutes(self.config.time_zone) is None:
            raise ConfigError("This is not a time zone.", key="time_zone", expected="±HH:MM")
        if not 0 <= self.config.identification_type < len(ID_TYPES):
            raise ConfigError("Unknown identification type.", key="identification_type", expected="0..17")
        self.port = self.config.port
        self.requests: deque[Recorded] = deque(maxlen=1000)
        self.headers: deque[Mapping[str, str]] = deque(maxlen=1000)
        self.request_count = 0
        self.faults = Faults(self._fault_changed)
        self._random = random.Random(self.config.seed)  # the wandering load, nothing secret
        self._ripple = Fraction(1)
        self._key = ec.generate_private_key(ec.SECP256R1())
        point = self._key.public_key().public_numbers()
        self.public_key = f"{point.x:064X}{point.y:064X}"
        self.public_key_ocmf = "3059301306072A8648CE3D020106082A8648CE3D03010703420004" + self.public_key
        # time
        self._start = self.config.start_time or datetime.now(UTC)
        self._origin = self.config.monotonic()
        self._skipped_us = 0
        self._now_us = 0
        self._powered_us = -int(self.config.uptime_s * 1e6)
        self._down_until: float | None = None  # asyncio loop time
        # the meter
        self.power = PowerPath(self.config.energy_import, self.config.energy_export)
        self._heat = 0.0  # kelvin per second by the fault overtemp
        self._load: tuple[Fraction, Fraction] | None = None
        self.settings = Settings(
            clock_offset=timedelta(seconds=self.config.clock_offset_s),
            last_sync=self._start if self.config.synced_at_start else None,
            zone=self.config.time_zone,
            dst=DST_OFF,
            servers=(("", 123), ("", 123)),
            sync_period=120,
            ntp=False,
            tls_on=self.config.tls_on,
            id_type=self.config.identification_type,
        )
        self._saved = self.settings
        self._errors: set[str] = set()
        self._reversed = False
        self._memory: deque[Transaction] = deque(maxlen=self.config.memory_size)
        self._count = 0  # transactions ever; the pagination counter
        self.logbook: list[Mapping[str, Any]] = []
        self._log("EV_COMMISSIONING")
        self._fill_history()
        # the server
        self._stack = AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._shown: Speech | None = None  # what the port speaks now: None, "http" or a certificate kind
        self._writers: set[asyncio.StreamWriter] = set()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._recorded = asyncio.Event()

    # -- life

    async def __aenter__(self) -> Self:
        for spec in self.config.faults:
            self.faults.set(spec)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            if self._wanted() is None:  # learn the port even when nobody may connect yet
                await self._open("http")
                self._close_server()
                self._shown = None
            else:
                await self._reconcile()
            self._stack = stack.pop_all()
        # Entered last and left first: an error above must not come wrapped in a group.
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.callback(self._cancel_tasks)
        self._spawn(self._supervise(), "supervise")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _spawn(self, work: Any, name: str) -> None:
        if self._group is None:
            raise RuntimeError("the simulator is not running")
        task: asyncio.Task[None] = self._group.create_task(work, name=f"lem-dcbm:{self.port}:{name}")
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    def _cancel_tasks(self) -> None:
        self._close_server()
        for task in list(self._tasks):
            task.cancel()

    async def _stop(self) -> None:
        self._close_server()
        for writer in list(self._writers):
            abort(writer)
        for _ in range(2):  # plain and TLS transports close their sockets in the loop's next rounds
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Address of the meter as it speaks now, without a trailing slash."""
        scheme = "https" if self.settings.tls_on else "http"
        return f"{scheme}://{self.host}:{self.port}"

    @property
    def certificate_pem(self) -> str:
        """The meter's own certificate as good PEM; ``GET /v1/certificate`` gives it with two line breaks missing."""
        return certificate_pem(self._own_kind())

    async def settle(self) -> None:
        """Return when the port speaks what settings and faults ask for, and a reboot is over (at once, if so).

        Raises:
            TimeoutError: it did not within 15 s.
        """
        async with asyncio.timeout(REBIND_S + 5):
            while self._shown != self._wanted() or self._down_until is not None:
                self._settled.clear()
                await self._settled.wait()

    async def wait_for_requests(self, count: int) -> None:
        """Return when ``request_count``, all requests since the start, has reached ``count``; has no deadline."""
        while self.request_count < count:
            self._recorded.clear()
            await self._recorded.wait()

    # -- the port: HTTP or HTTPS, never both (spec 10)

    def _own_kind(self) -> CertificateKind:
        return "own-expired" if self.faults.value("cert-expired") is not None else "own"

    def _wanted(self) -> Speech | None:
        if self._down_until is not None or self.faults.value("refuse") is not None:
            return None
        if not self.settings.tls_on:
            return "http"
        return "other" if self.faults.value("cert-wrong") is not None else self._own_kind()

    async def _supervise(self) -> None:
        """Keep the port as settings and faults want it."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if self._down_until is not None and loop.time() >= self._down_until:
                self._down_until = None
            await self._reconcile()
            self._settled.set()
            wait = None if self._down_until is None else max(self._down_until - loop.time(), 0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _reconcile(self) -> None:
        while (wanted := self._wanted()) != self._shown:
            self._close_server()
            self._shown = None
            if wanted is not None:
                await self._open(wanted)

    async def _open(self, speak: Speech) -> None:
        context = None if speak == "http" else _server_context(speak)
        tls: dict[str, Any] = (
            {} if context is None else {"ssl": context, "ssl_handshake_timeout": 5.0, "ssl_shutdown_timeout": 1.0}
        )
        again = self._server is not None
        deadline = asyncio.get_running_loop().time() + REBIND_S
        while True:
            try:
                # Kept before it serves, so that a cancellation in between leaves no open port behind.
                self._server = await asyncio.start_server(
                    partial(self._accept, speak), self.host, self.port, start_serving=False, **tls
                )
                await self._server.start_serving()
                break
            except OSError as exc:
                # Another program's outgoing connection may sit on our port for a moment while we have it closed.
                if not again or asyncio.get_running_loop().time() > deadline:
                    raise LinkError(
                        f"The simulator cannot listen on {self.host}:{self.port} ({exc.strerror}). "
                        "Choose another port, or 0 for a free one.",
                        LinkReason.BUSY,
                        may_have_arrived=False,
                    ) from exc
            await asyncio.sleep(0.05)
        self.port = self._server.sockets[0].getsockname()[1]
        self._shown = speak

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()

    def _accept(self, speak: Speech, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection that was waiting while the port changed its language is not served in the old one.
        if self._group is None or self._shown != speak or len(self._writers) >= MAX_CONNECTIONS:
            abort(writer)
            return
        self._writers.add(writer)
        self._spawn(self._connection(reader, writer), "connection")

    def _hang_up_all(self) -> None:
        for writer in list(self._writers):
            reset(writer)

    # -- one connection, one request (spec 1)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):  # the peer went away, or was too slow; both are its own affair
                await self._serve(reader, writer)
                writer.close()
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()
        finally:
            self._writers.discard(writer)
            abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await _read_request(reader, writer)
        except h11.RemoteProtocolError as exc:
            await _send(writer, _head(400, 0, ()))
            if exc.error_status_hint == 413:
                reset(writer)
            return
        except _Refusal as refusal:
            await _send(writer, _render(refusal.answer))
            return
        if request is None:
            return
        if self.config.control and request.path == "/_sim/faults":
            self._writers.discard(writer)  # a reboot must not cut the answer to the one who asked for it
            await _send(writer, _render(self._control(request)))
            return
        self.requests.append(Recorded(request.method, request.target, request.body))
        self.headers.append(request.headers)
        self.request_count += 1
        self._recorded.set()
        struck = self._struck(request)
        if struck("silence") is not None:
            while await reader.read(4096):
                pass
            return
        answer = self._answer(request, struck)
        if answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        await self._emit(writer, answer, struck)
        self._wake.set()  # a TLS switch happens only now, after the answer has left

    def _struck(self, request: _Request) -> Callable[[str], str | None]:
        return lambda name: self.faults.take(name, request.method, request.path)

    def _answer(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        """Carry the request out and bend the answer as the faults want."""
        if (place := struck("redirect")) is not None:
            return _Answer(302, {"detail": "moved"}, headers=(("Location", place),))
        if (code := struck("http-error")) is not None:
            return _Answer(int(code), {"detail": "fault on demand"})
        try:
            answer = self._route(request, struck)
        except _Refusal as refusal:
            answer = refusal.answer
        if answer.text is None:
            if isinstance(answer.value, dict) and "voltage" in answer.value and (word := struck("nan")) is not None:
                answer.value = answer.value | {"voltage": Word(word), "power": Word(word)}
            if (how := struck("wrong-type")) is not None:
                answer.value = _mistyped(answer.value, how)
            if struck("malformed-json") is not None:
                answer.value = Word(to_json(answer.value)[:-1] + ",")
        if (late := struck("delay")) is not None:
            answer.delay_s += max(float(late), 0.0)
        return answer

    async def _emit(self, writer: asyncio.StreamWriter, answer: _Answer, struck: Callable[[str], str | None]) -> None:
        """Send the answer, or what a fault of the wire makes of it."""
        whole = _render(answer)
        body = whole.index(b"\r\n\r\n") + 4
        half = body + (len(whole) - body) // 2
        if struck("lose-answer") is not None:
            return
        if struck("not-http") is not None:
            await _send(writer, b"\x00\xff\x7eDCBM bootloader 1.2\r\n\r\n>")
        elif struck("reset") is not None:
            await _send(writer, whole[:half])
            reset(writer)
        elif struck("truncate") is not None:
            await _send(writer, whole[:half])
        elif (wrong := struck("wrong-length")) is not None:
            size = max(len(whole) - body + int(wrong), 0)
            await _send(writer, _head(answer.status, size, answer.headers) + whole[body:])
        elif struck("duplicate") is not None:
            await _send(writer, whole + whole)
        elif (size_text := struck("huge")) is not None:
            left = int(size_text)
            await _send(writer, _head(answer.status, left, answer.headers))
            while left > 0:
                await _send(writer, BLANKS[: min(left, len(BLANKS))])
                left -= len(BLANKS)
        elif struck("endless") is not None:
            await _send(writer, _head(answer.status, None, answer.headers))
            chunk = b"%x\r\n%b\r\n" % (len(BLANKS), BLANKS)
            while True:
                await _send(writer, chunk)
        elif (interval := struck("slow-loris")) is not None:
            for n in range(len(whole)):
                await _send(writer, whole[n : n + 1])
                await asyncio.sleep(max(float(interval), 0.0))
        else:
            await _send(writer, whole)

    def _control(self, request: _Request) -> _Answer:
        """``{"set": ["delay=2"], "clear": ["silence"]}``; clear ``["*"]`` ends all; clear comes first."""
        if request.method == "POST":
            try:
                body = _parse(request.body)
                for name in _texts(body, "clear"):
                    self.faults.clear(*(() if name == "*" else (name,)))
                for spec in list(_texts(body, "set")):
                    self.faults.set(spec)
            except _Refusal as refusal:
                return refusal.answer
            except ConfigError as exc:
                return _Answer(422, {"detail": str(exc)})
        elif request.method != "GET":
            return _Answer(405, {"detail": "Method Not Allowed"})
        return _Answer(200, {"active": self.faults.active(), "known": dict(FAULTS)})

    def _fault_changed(self, name: str, value: str) -> None:
        self._advance()
        if name == "fatal-error":
            self._errors.add(value)
        elif name == "reversed-voltage":
            self._reversed = True
        elif name == "clock-unsynced":
            self.settings = replace(self.settings, last_sync=None)
        elif name == "running":
            self._begin_foreign(value)
        elif name == "reboot":
            self._reboot(forget_tls=value == "http")
        self._heat = float(self.faults.value("overtemp") or 0)
        self._collect()
        self._wake.set()

    # -- time

    def advance(self, seconds: float) -> None:
        """Let simulated time jump forward by so many seconds; energy, temperatures and clocks follow."""
        self._skipped_us += int(seconds * 1e6)
        self._advance()

    def set_load(self, voltage: Decimal | None, current: Decimal | None = None) -> None:
        """New set points (V, A) from now on, whether a transaction runs or not; None: back to the configuration."""
        self._advance()
        self._load = None if voltage is None else (Fraction(voltage), Fraction(current or 0))

    @property
    def now(self) -> datetime:
        """Simulated time, UTC: what a right clock would show."""
        return self._start + timedelta(microseconds=self._now_us)

    @property
    def meter_time(self) -> datetime:
        """What the meter's clock shows, UTC."""
        return self.now + self.settings.clock_offset

    @property
    def uptime_s(self) -> float:
        """Simulated seconds since power-up."""
        return (self._now_us - self._powered_us) / 1e6

    def _advance(self) -> None:
        real = self.config.monotonic() - self._origin
        then, self._now_us = self._now_us, int(real * self.config.time_scale * 1e6) + self._skipped_us
        left = Fraction(max(self._now_us - then, 0), 1_000_000)
        steps = 0
        while left > 0:
            voltage, current = self._set_points()
            step = left
            if self.config.ripple and current and steps < 1000:
                step = min(left, Fraction(5))
                self._ripple = 1 + Fraction(self.config.ripple) * Fraction(self._random.randint(-100, 100), 100)
            steps += 1
            self.power.advance(step, voltage, current * self._ripple, self._heat)
            left -= step
        self._ntp()
        self._collect()

    def _set_points(self) -> tuple[Fraction, Fraction]:
        if self._load is not None:
            return self._load
        on = self.config.load == "always" or (self.config.load == "transaction" and self.current is not None)
        return (Fraction(self.config.voltage), Fraction(self.config.current)) if on else (Fraction(0), Fraction(0))

    def _ntp(self) -> None:
        """NTP keeps the clock right, not during a transaction (spec 7)."""
        settings = self.settings
        if not settings.ntp or not settings.servers[0][0] or not self.config.ntp_reachable or self.current is not None:
            return
        if settings.last_sync is None or self.now - settings.last_sync >= timedelta(seconds=NTP_EVERY_S):
            self.settings = replace(settings, clock_offset=timedelta(0), last_sync=self.now)
            self._log("EV_TIME_SYNC_SUCCEEDED")

    # -- flags (spec 9)

    @property
    def current(self) -> Transaction | None:
        """The running transaction."""
        return self._memory[-1] if self._memory and self._memory[-1].running else None

    @property
    def flags(self) -> dict[str, bool]:
        """The eight status bits by name, in the order of their index."""
        sync = self.settings.last_sync
        on = self.faults.value
        synced = sync is not None and self.now - sync < SYNC_VALID and on("clock-unsynced") != "stuck"
        state = (
            on("link-down") is None,
            bool(self._errors),
            self.current is not None,
            on("tampering") is not None,
            synced,
            max(self.power.temperatures_c) >= OVERTEMPERATURE_C,
            self._reversed,
            on("measure-failure") is not None,
        )
        return {name: value for (name, _), value in zip(STATUS_BITS, state, strict=True)}

    @property
    def status(self) -> int:
        """Sum of the true flags; 17 is ready, 21 a good transaction."""
        return sum(1 << index for index, value in enumerate(self.flags.values()) if value)

    def _collect(self) -> None:
        """``transactionStatus`` keeps every flag raised. Choice: a good flag once lost stays lost."""
        if (transaction := self.current) is None:
            return
        now = self.status & ~ON_GOING
        for index, (_, nominal) in enumerate(STATUS_BITS):
            bit = 1 << index
            if nominal and not now & bit:
                transaction.status &= ~bit
            elif not nominal and now & bit:
                transaction.status |= bit

    def _log(self, event: str) -> None:
        """Logbook entry; only codes that are published (spec 3.7). A full logbook ends the meter's life."""
        if len(self.logbook) >= self.config.logbook_size:
            self._errors.add("logbookIsFull")
            return
        names = ("SENSOR_LINK", "FATAL_ERROR", "TRANSACTION", "TAMPERING", "TIME_SYNC", "OVERTEMPERATURE")
        status = [f"STATUS_{name}" for name, on in zip(names, self.flags.values(), strict=False) if on]
        stamp = self.meter_time.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.logbook.append({"timestamp": stamp, "eventCode": event, "status": status})

    def _reboot(self, *, forget_tls: bool) -> None:
        if self.current is not None:
            self._finish("P")
        self._log("EV_POWER_SUPPLY_FAILURE")
        self.settings = replace(self._saved, tls_on=self._saved.tls_on and not forget_tls)
        self._saved = self.settings
        self.power.drop()
        self._load = None
        self._powered_us = self._now_us
        self._errors = {e for e in self._errors if e == "logbookIsFull"}  # that one is for ever
        if (name := self.faults.value("fatal-error")) is not None:
            self._errors.add(name)
        self._reversed = self.faults.value("reversed-voltage") is not None
        if self._group is not None:
            self._hang_up_all()
            self._down_until = asyncio.get_running_loop().time() + self.config.reboot_s

    # -- routes

    def _route(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        self._advance()
        generation, _, rest = request.path.removeprefix("/").partition("/")
        name, slash, index = rest.partition("/")
        table = {
            "status": {"GET": self._get_status},
            "livemeasure": {"GET": self._get_live},
            "settings": {"GET": self._get_settings, "PUT": self._put_settings},
            "certificate": {"GET": self._get_certificate},
            "logbook": {"GET": self._get_logbook},
            "legal": {"GET": self._get_legal, "POST": self._post_legal, "PUT": self._put_legal},
            "ocmf": {"GET": self._get_ocmf},
        }
        known = generation == "v1" or (
            generation == "v2" and self.config.v2 and name in ("legal", "ocmf", "livemeasure")
        )
        if not known or name not in table or (slash and name not in ("legal", "ocmf")):
            raise _Refusal(404, "Not Found")
        if slash and (not re.fullmatch(r"-?[0-9]{1,9}", index) or request.method != "GET"):
            raise _Refusal(404, "Not Found")
        missing = self.faults.value("legal-missing")
        if name == "legal" and missing is not None and (missing == "all" or request.method == "GET"):
            raise _Refusal(404, "Not Found")
        if request.method not in table[name]:
            raise _Refusal(405, "Method Not Allowed")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and (request.method != "GET" or self.config.strict_content_type):
            raise _Refusal(422, [{"type": "content_type", "loc": ["header", "Content-Type"]}])
        return table[name][request.method](request, struck)

    def _get_status(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        firmware = self.config.firmware
        zone = local_time(self.meter_time, self.settings.zone, self.settings.dst)
        return _Answer(
            200,
            {
                "status": {"value": self.status, "bits": self.flags},
                "version": {
                    "applicationFirmwareVersion": firmware,
                    "applicationFirmwareAuthTag": _tag("application", firmware),
                    "legalFirmwareVersion": firmware,
                    "legalFirmwareAuthTag": _tag("legal", firmware),
                    "sensorFirmwareVersion": "0.0.8.0",
                    "sensorFirmwareCrc": _tag("sensor", "0.0.8.0")[:8],
                },
                "time": _seconds(zone),
                "ipAddress": self.host,
                "meterId": self.config.meter_id,
                "errors": {
                    "value": sum(1 << ERROR_BITS[name] for name in self._errors),
                    "bits": {name: name in self._errors for name in ERROR_BITS},
                },
                "publicKey": self.public_key,
                "publicKeyOcmf": self.public_key_ocmf,
                "indexOfLastTransaction": max(self._count - 1, 0) % self.config.memory_size,
                "numberOfStoredTransactions": len(self._memory),
            },
        )

    def _get_live(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        high, low = self.power.temperatures_c
        return _Answer(
            200,
            {
                "voltage": _round(self.power.voltage, 2),
                "current": _round(self.power.current, 2),
                "power": _round(self.power.voltage * self.power.current / 1000, 3),
                "temperatureH": _round(Fraction(high), 1),
                "temperatureL": _round(Fraction(low), 1),
                "energyImportTotal": self.power.energy_import_kwh,
                "energyExportTotal": self.power.energy_export_kwh,
                "timestamp": self.meter_time.replace(tzinfo=None).isoformat(timespec="microseconds"),
            },
        )

    def _get_certificate(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        # The device leaves out the breaks after BEGIN and before END (spec 3.6).
        text = self.certificate_pem.strip()
        text = text.replace("CERTIFICATE-----\n", "CERTIFICATE-----", 1).replace("\n-----END", "-----END")
        return _Answer(200, {"certificate": text})

    def _get_logbook(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        document = {"meterId": self.config.meter_id, "logbook": list(self.logbook)}
        return _Answer(200, document, delay_s=self.config.logbook_delay_s)

    # -- settings (spec 3.4)

    def _get_settings(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        settings = self.settings
        return _Answer(
            200,
            {
                "meterId": self.config.meter_id,
                "time": {
                    "utc": self.meter_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "tz": settings.zone,
                    "dst": settings.dst,
                },
                "ntp": {
                    "servers": [{"ipAddress": address, "port": port} for address, port in settings.servers],
                    "syncPeriod": settings.sync_period,
                    "ntpActivated": settings.ntp,
                },
                "http": {"tls_on": settings.tls_on},
                "ocmfId": {"IT": settings.id_type},
                "cableConf": [
                    {"cableSpName": name, "cableSpId": index, "cableSpRes": resistance}
                    for index, (name, resistance) in enumerate(CABLES)
                ],
            },
        )

    def _put_settings(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        body = _parse(request.body)
        if len(body) != 1:
            raise _Refusal(422, "one group of settings at a time")
        group, value = next(iter(body.items()))
        if not isinstance(value, dict):
            raise _Refusal(422, [{"type": "object_type", "loc": ["body", group]}])
        change = self._change(group, value)
        good = change is not None and self.current is None and struck("result-zero") is None
        if good and change is not None:
            self.settings = change
            if self.uptime_s >= UNSAFE_S or not self.config.lose_early_settings:
                self._saved = change
            if group == "time" and "utc" in value:
                self._log("EV_TIME_SYNC_SUCCEEDED")
            self._ntp()
            self._saved = self._saved if self._saved is not change else self.settings
        return _Answer(200, {"meterId": self.config.meter_id, "result": int(good)})

    def _change(self, group: str, value: Mapping[str, Any]) -> Settings | None:
        """Settings after this change; None when the value is not accepted (result 0)."""
        settings = self.settings
        if group == "time" and len(value) == 1:
            if "utc" in value:
                if (moment := _utc(_need(value, "utc", str, ("time",)))) is None:
                    return None
                # Setting the time by command switches NTP off.
                return replace(settings, clock_offset=moment - self.now, last_sync=self.now, ntp=False)
            if "tz" in value:
                zone: str = _need(value, "tz", str, ("time",))
                return replace(settings, zone=zone) if _minutes(zone) is not None else None
            if "dst" in value:
                dst = _need(value, "dst", dict, ("time",))
                return replace(settings, dst=dst) if _good_dst(dst) else None
        if group == "ntp":
            return self._change_ntp(value)
        if group == "http":
            return replace(settings, tls_on=_need(value, "tls_on", bool, ("http",)))
        if group == "ocmfId":
            kind: int = _need(value, "IT", int, ("ocmfId",))
            return replace(settings, id_type=kind) if 0 <= kind < len(ID_TYPES) else None
        raise _missing(group, "?")

    def _change_ntp(self, value: Mapping[str, Any]) -> Settings | None:
        active: bool = _need(value, "ntpActivated", bool, ("ntp",))
        servers = []
        for server in _need(value, "servers", list, ("ntp",)):
            if not isinstance(server, dict):
                raise _Refusal(422, [{"type": "object_type", "loc": ["body", "ntp", "servers"]}])
            address: str = _need(server, "ipAddress", str, ("ntp", "servers"))
            port: int = _need(server, "port", int, ("ntp", "servers"))
            servers.append((address, port))
        if len(servers) != 2 or not all(1 <= port <= 65535 for _, port in servers) or (active and not servers[0][0]):
            return None
        period = _need(value, "syncPeriod", int, ("ntp",)) if "syncPeriod" in value else self.settings.sync_period
        last = self.settings.last_sync
        if active and self.config.ntp_reachable:
            last = None  # so that the next step synchronises
        return replace(self.settings, ntp=active, servers=(servers[0], servers[1]), sync_period=period, last_sync=last)

    # -- transactions (spec 3.3, 3.5)

    def _post_legal(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        body = _parse(request.body)
        v2 = request.path.startswith("/v2/")
        evse: str = _need(body, "evseId", str)
        name: str = _need(body, "transactionId", str)
        client: str = _need(body, "clientId", str)
        tariff: int = _need(body, "tariffId", int)
        cable: int = _need(body, "cableId", int)
        user: str = _need(body, "userData", str)
        text: str | None = None
        if v2:
            text = _need(body, "TT", str)
            _need(body, "UV", str)
            _need(body, "UD", str)
            _need(body, "SC", int)
        sizes = (
            ("evseId", len(evse.encode()) <= EVSE_BYTES),
            ("transactionId", 1 <= len(name.encode()) <= EVSE_BYTES),
            ("clientId", len(client.encode()) <= CLIENT_BYTES),
            ("userData", len(user.encode()) <= USER_DATA_BYTES),
            ("tariffId", 0 <= tariff <= 4),
            ("cableId", 0 <= cable < len(CABLES)),
            ("TT", len(text or "") <= TARIFF_TEXT_CHARS),
        )
        for member, fits in sizes:
            if not fits:
                raise _Refusal(422, [{"type": "out_of_range", "loc": ["body", member]}])
        echo = {
            "evseId": evse,
            "transactionId": name,
            "clientId": client,
            "tariffId": tariff,
            "cableId": cable,
            "running": True,
        }
        if struck("not-running") is not None:
            return _Answer(201, echo | {"running": False})
        if (how := struck("start-200")) is not None and how != "started":
            return _Answer(200, echo)
        flags = self.flags
        blockers = [
            flag
            for flag, nominal in STATUS_BITS
            if flag in ("suLinkStatusIsOk", "muFatalErrorOccured", "transactionIsOnGoing", "timeSyncStatusIsOk")
            and flags[flag] is not nominal
        ]
        if blockers:
            raise _Refusal(self.config.refusal_code, f"start refused: {', '.join(blockers)}")
        self._begin(evse, name, client, tariff, cable, user, text)
        return _Answer(201 if how is None else 200, echo)

    def _begin(
        self, evse: str, name: str, client: str, tariff: int, cable: int, user: str, text: str | None
    ) -> Transaction:
        status = self.status & ~ON_GOING
        self._count += 1
        transaction = Transaction(
            number=self._count,
            evse_id=evse,
            transaction_id=name,
            client_id=client,
            tariff_id=tariff,
            cable_id=cable,
            user_data=user,
            tariff_text=text,
            id_type=self.settings.id_type,
            start=self.meter_time,
            start_quality=self._quality(),
            start_import=self.power.energy_import_kwh,
            start_export=self.power.energy_export_kwh,
            status=status,
        )
        self._memory.append(transaction)
        return transaction

    def _begin_foreign(self, name: str) -> None:
        if self.current is None:
            self._begin("DE*SIM*E1", name, f"foreign,{name}"[:CLIENT_BYTES], 0, 0, "", "" if self.config.v2 else None)

    def _finish(self, kind: str) -> Transaction:
        """End the running transaction; ``kind`` is the OCMF code E or P (power failure)."""
        self._collect()
        transaction = self._memory[-1]
        transaction.stop = self.meter_time
        end = self._here()
        transaction.legal = self._legal(transaction, end)
        transaction.ocmf = self._ocmf(transaction, kind, end)
        return transaction

    def _fill_history(self) -> None:
        used = Decimal("7.637")
        register = max(self.config.energy_import - used * self.config.history, Decimal("0.000"))
        for n in range(self.config.history, 0, -1):
            transaction = self._begin("DE*SIM*E1", f"history-{n}", f"04AABBCC,history-{n}", 0, 0, "", None)
            transaction.start -= timedelta(hours=n, minutes=30)
            transaction.start_import = register
            transaction.status = 17
            register = min(register + used, self.config.energy_import)
            end = _End(transaction.start + timedelta(minutes=20), register, transaction.start_export)
            transaction.stop = end.time
            transaction.legal = self._legal(transaction, end)
            transaction.ocmf = self._ocmf(transaction, "E", end)

    def _put_legal(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        if "transactionId" not in request.query:
            raise _Refusal(422, [{"type": "missing", "loc": ["query", "transactionId"]}])
        if _need(_parse(request.body), "running", bool):
            raise _Refusal(422, [{"type": "literal_error", "loc": ["body", "running"]}])
        current = self.current
        if current is None or current.transaction_id != request.query["transactionId"]:
            raise _Refusal(self.config.refusal_code, "this transaction is not running")
        return _Answer(200, self._finish("E").legal)

    def _get_legal(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        transaction = self._find(request)
        return _Answer(200, self._legal(transaction, self._here()) if transaction.running else transaction.legal)

    def _get_ocmf(self, request: _Request, struck: Callable[[str], str | None]) -> _Answer:
        transaction = self._find(request)
        text = self._ocmf(transaction, "C", self._here()) if transaction.running else transaction.ocmf
        if struck("empty-ocmf") is not None:
            text = ""
        if struck("flip-ocmf") is not None:
            text = re.sub(r'("RV":[0-9]+\.[0-9]*)([0-9])', lambda m: m[1] + chr(ord(m[2]) ^ 1), text, count=1)
        return _Answer(200, text=text)

    def _find(self, request: _Request) -> Transaction:
        """The four forms of spec 3.5; -1 is the one before the last, so that -20398 is the oldest of 20399."""
        stored = len(self._memory)
        index = request.path.split("/")[3:]
        if index:
            n = int(index[0])
            if n < 0 or index[0].startswith("-"):
                place = stored - 1 + n if n < 0 else -1
            else:  # slot of the ring, which holds the transactions counted from 0
                first = self._count - stored
                place = (n - first) % self.config.memory_size if n < self.config.memory_size else -1
            if 0 <= place < stored:
                return self._memory[place]
        elif "transactionId" in request.query:
            wanted = request.query["transactionId"]
            for n in range(stored - 1, max(stored - 1 - ID_SEARCH_DEPTH, -1), -1):
                if self._memory[n].transaction_id == wanted:
                    return self._memory[n]
        elif stored:
            return self._memory[-1]
        raise _Refusal(404, "no such transaction")  # Choice: undocumented (spec 19)

    def _local(self, moment: datetime) -> datetime:
        return local_time(moment, self.settings.zone, self.settings.dst)

    def _quality(self) -> str:
        """Clock state of OCMF times, never S (spec 7). Choice: informative under NTP, else relative."""
        return "I" if self.settings.ntp else "R"

    def _here(self) -> _End:
        return _End(self.meter_time, self.power.energy_import_kwh, self.power.energy_export_kwh)

    def _legal(self, transaction: Transaction, end: _End) -> Mapping[str, Any]:
        """The legal document with these end values; for a running transaction an intermediate one."""
        running = transaction.running
        name, resistance = CABLES[transaction.cable_id]
        document: dict[str, Any] = {
            "paginationCounter": transaction.number,
            "transactionId": transaction.transaction_id,
            "evseId": transaction.evse_id,
            "clientId": transaction.client_id,
            "tariffId": transaction.tariff_id,
            "cableSp": {"cableSpName": name, "cableSpId": transaction.cable_id, "cableSpRes": resistance},
            "userData": transaction.user_data,
            "meterValue": {
                "timestampStart": _seconds(self._local(transaction.start)),
                "timestampStop": _seconds(self._local(end.time)),
                "transactionDuration": max(int((end.time - transaction.start).total_seconds()), 0),
                "intermediateRead": running,
                "transactionStatus": transaction.status | (ON_GOING if running else 0),
                "sampleValue": {
                    "energyUnit": "kWh",
                    "energyImport": end.energy_import - transaction.start_import,
                    "energyImportTotalStart": transaction.start_import,
                    "energyImportTotalStop": end.energy_import,
                    "energyExport": end.energy_export - transaction.start_export,
                    "energyExportTotalStart": transaction.start_export,
                    "energyExportTotalStop": end.energy_export,
                },
            },
            "meterId": self.config.meter_id,
        }
        document["signature"] = self._sign(to_json(document).encode())
        document["publicKey"] = self.public_key
        return document

    def _ocmf(self, transaction: Transaction, kind: str, end: _End) -> str:
        """A signed OCMF record laid out as the genuine one of the vectors; ``kind`` is the TX of the last readings."""
        assigned = bool(transaction.client_id.partition(",")[0])
        name, resistance = CABLES[transaction.cable_id]
        begin: dict[str, Any] = {
            "TM": self._ocmf_time(transaction.start, transaction.start_quality),
            "TX": "B",
            "RV": transaction.start_import,
            "RI": "1-0:1.8.0",
            "RU": "kWh",
            "RT": "DC",
            "EF": "",
            "ST": "G",
        }
        last: dict[str, Any] = {
            "TM": self._ocmf_time(end.time, self._quality()),
            "TX": kind,
            "RV": end.energy_import,
            "RI": "1-0:1.8.0",
            "RU": "kWh",
        }
        energy_lost = not transaction.status & 1 or transaction.status & (2 | 128)
        time_lost = not transaction.status & 16
        if energy_lost or time_lost:  # else inherited from the first reading
            last["EF"] = ("E" if energy_lost else "") + ("t" if time_lost else "")
        state = "M" if transaction.status & 8 else "G"
        last["ST"] = state
        head: dict[str, Any] = {
            "FV": "1.0",
            "GI": "LEM DCBM",
            "GS": self.config.meter_id,
            "GV": "v1",
            "PG": f"T{transaction.number}",
            "MV": "LEM",
            "MS": self.config.meter_id,
            "MF": f"MU-{self.config.firmware}_SU-0.0.8.0",
            "IS": assigned,
            "IL": "HEARSAY" if assigned else "NONE",
            "IF": ["RFID_RELATED", "OCPP_AUTH_TLS", "ISO15118_NONE", "PLMN_NONE"],
            "IT": ID_TYPES[transaction.id_type],
            "ID": transaction.client_id,
        }
        if transaction.tariff_text is None:
            begin["UC"] = {"UN": name, "UI": transaction.cable_id, "UR": resistance}
        else:  # Choice: the form of v2 records is not published; spec 8.2 says newer ones carry LC
            head["TT"] = transaction.tariff_text
            head["LC"] = {"LN": name, "LI": transaction.cable_id, "LR": resistance, "LU": "mOhm"}
        head |= {
            "CT": "EVSEID",
            "CI": transaction.evse_id,
            "RD": [
                begin,
                {"RV": transaction.start_export, "RI": "1-0:2.8.0", "RU": "kWh", "ST": "G"},
                last,
                {"RV": end.energy_export, "RI": "1-0:2.8.0", "RU": "kWh", "ST": state},
            ],
        }
        payload = to_json(head)
        signature = {"SA": "ECDSA-secp256r1-SHA256", "SD": self._sign(payload.encode())}
        return f"OCMF|{payload}|{to_json(signature)}"

    def _ocmf_time(self, moment: datetime, quality: str) -> str:
        local = self._local(moment)
        return f"{local:%Y-%m-%dT%H:%M:%S},000{local:%z} {quality}"

    def _sign(self, data: bytes) -> str:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256())).hex().upper()


# ------------------------------------------------------------------------------------------------------------ HTTP text

BLANKS: Final = b" " * 65536


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Request | None:
    """One whole request; None when the peer closed without one.

    Raises:
        h11.RemoteProtocolError: not HTTP, or broken off.
        _Refusal: body above 1 MiB.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                goon = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                await _send(writer, connection.send(goon) or b"")
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise _Refusal(413, "body too large")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
            return _Request(head.method.decode("ascii"), head.target.decode("latin-1"), headers, bytes(body))
        else:
            return None


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)  # drain does not pause while the peer keeps up; others want to run too


def _head(status: int, length: int | None, headers: Sequence[tuple[str, str]]) -> bytes:
    """Status line and header fields; ``length`` None announces chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
    reason = REASONS.get(status, "Unknown")
    return f"HTTP/1.1 {status} {reason}\r\n{more}{size}\r\nConnection: close\r\n\r\n".encode("latin-1")


def _render(answer: _Answer) -> bytes:
    """The answer's bytes, and its final header fields kept in the answer."""
    kind = "application/json" if answer.text is None else "text/plain; charset=utf-8"
    body = (to_json(answer.value) if answer.text is None else answer.text).encode()
    answer.headers = (("Content-Type", kind), *answer.headers)
    return _head(answer.status, len(body), answer.headers) + body


def _parse(body: bytes) -> Mapping[str, Any]:
    """JSON object of a request, or a 422."""
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _Refusal(422, [{"type": "json_invalid", "loc": ["body"]}]) from None
    if not isinstance(value, dict):
        raise _Refusal(422, [{"type": "object_type", "loc": ["body"]}])
    return value


def _texts(body: Mapping[str, Any], name: str) -> Iterator[str]:
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _Refusal(422, f"{name} must be a list of texts")
    yield from value


def _utc(text: str) -> datetime | None:
    """Moment of ``2024-05-01T10:00:00.123Z`` (fraction optional), None when it is not one."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _tag(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:32].upper()


# --------------------------------------------------------------------------------------------------------- command line


def config_from(options: SimOptions) -> LemDcbmConfig:
    """Configuration of the command line's options.

    Known ``extra`` names: firmware (v1, v2 or a version), meter_id, tls, control, synced, ntp_reachable (yes or no),
    voltage, current, ripple (decimals), load (transaction, always, off), time_scale, uptime_s, clock_offset_s
    (numbers), history (a count).

    Raises:
        ConfigError: unknown name or bad value.
    """
    config = LemDcbmConfig(port=options.port, faults=options.faults, seed=options.seed, ripple=Decimal("0.005"))
    generations = {"v1": "0.1.4.0", "v2": "0.2.1.0"}
    readers: dict[str, tuple[str, Callable[[str], Any]]] = {
        "firmware": ("firmware", lambda text: generations.get(text, text)),
        "meter_id": ("meter_id", str),
        "tls": ("tls_on", yes),
        "control": ("control", yes),
        "synced": ("synced_at_start", yes),
        "ntp_reachable": ("ntp_reachable", yes),
        "voltage": ("voltage", _decimal),
        "current": ("current", _decimal),
        "ripple": ("ripple", _decimal),
        "load": ("load", _load),
        "time_scale": ("time_scale", float),
        "uptime_s": ("uptime_s", float),
        "clock_offset_s": ("clock_offset_s", float),
        "history": ("history", int),
    }
    changes: dict[str, Any] = {}
    for name, text in options.extra.items():
        if name not in readers:
            raise ConfigError("Unknown setting of the simulator.", key=name, expected="one of " + ", ".join(readers))
        attribute, read = readers[name]
        try:
            changes[attribute] = read(text)
        except (ValueError, InvalidOperation):
            raise ConfigError(f"{text!r} is not a value for it.", key=name) from None
    return replace(config, **changes)


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError(text)
    return value


def _load(text: str) -> str:
    if text not in ("transaction", "always", "off"):
        raise ValueError(text)
    return text


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run one meter until cancelled; see ``catalog.ServeFunction`` and ``config_from`` for the settings."""
    async with LemDcbmSimulator(config_from(options)) as sim:
        announce({"sim": "lem-dcbm", "host": sim.host, "port": sim.port, "url": sim.url})
        await asyncio.get_running_loop().create_future()
