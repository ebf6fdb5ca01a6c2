"""LEM DCBM 400/600: requests, judging of answers, and the rules around them (specs/lem-dcbm.md).

Sans-I/O: requests are values, answers come in as status code and bytes, time comes in as an argument. The adapter owns
the connection, the lock, the deadlines and the retries.

Two kinds of failure are kept apart (section 4): a transport failure is the adapter's LinkError; a response failure is
``UnexpectedStatus`` or ``UnusableBody`` here, both RemoteProtocolErrors.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.errors import ConfigError, ParameterError, RemoteProtocolError
from app.protocols import ocmf

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Content-Type": "application/json", "Connection": "close", "Accept-Encoding": "identity"}
)  # section 1, GET included
MAX_BODY_BYTES: Final = 1 << 20  # section 4; the logbook is exempt
MAX_LOGBOOK_BYTES: Final = 32 << 20  # ours: about 40000 events (section 3.7)
EXCERPT_CHARS: Final = 200  # section 4
TEXT_BYTES: Final = 37  # section 3.3: evseId, transactionId, clientId
TARIFF_TEXT_CHARS: Final = 250  # section 3.3: TT
OLDEST_RECORD: Final = -20398  # section 3.5
STORED_RECORDS: Final = 20399
SYNC_PERIOD: Final = 120  # section 3.4, unit unknown, always sent
READY: Final = 17  # section 9
TRANSACTION_BIT: Final = 4
MAX_NUMBER_CHARS: Final = 60  # ours; beyond it a number is text

IDENTIFICATION_TYPES: Final = (
    "NONE",
    "DENIED",
    "UNDEFINED",
    "ISO14443",
    "ISO15693",
    "EMAID",
    "EVCCID",
    "EVCOID",
    "ISO7812",
    "CARD_TXN_NR",
    "CENTRAL",
    "CENTRAL_1",
    "CENTRAL_2",
    "LOCAL",
    "LOCAL_1",
    "LOCAL_2",
    "PHONE_NUMBER",
    "KEY_CODE",
)  # section 3.4: the position is the value


# ---------------------------------------------------------------- failures


class UnexpectedStatus(RemoteProtocolError):
    """The wrong HTTP status code (section 4). ``received`` and ``expected`` are the codes."""

    def __init__(self, text: str, data: bytes, received: int, expected: int) -> None:
        super().__init__(text, data)
        self.received = received
        self.expected = expected


class UnusableBody(RemoteProtocolError):
    """The right status code with a body that does not satisfy section 4."""


class _Fault(Exception):
    """What is wrong with a body; becomes UnusableBody with the request's name."""


# ---------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``target`` is path and query, already percent-encoded; ``body`` is UTF-8 JSON or empty."""

    method: str
    target: str
    body: bytes = b""
    expected: int = 200
    max_bytes: int = MAX_BODY_BYTES

    @property
    def path(self) -> str:
        """The path without the query, which may hold a transaction id and stays out of messages."""
        return self.target.partition("?")[0]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Compact UTF-8 JSON, members in the given order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def get_status() -> Request:
    """Section 3.1; v1 in both generations."""
    return Request("GET", "/v1/status")


def get_live(v2: bool) -> Request:
    """Section 3.2."""
    return Request("GET", f"/{_version(v2)}/livemeasure")


def get_legal(v2: bool, *, transaction_id: str = "", index: int | None = None) -> Request:
    """Section 3.3: current transaction, else the last; or one of the forms of section 3.5."""
    return Request("GET", _stored(f"/{_version(v2)}/legal", transaction_id, index))


def get_ocmf(v2: bool, *, transaction_id: str = "", index: int | None = None) -> Request:
    """Section 3.5: by transaction id, by index (negative: back in time; 0 and up: storage index), or the last.

    Raises:
        ParameterError: both given, an index outside -20398..20398, or an id that cannot be sent.
    """
    return Request("GET", _stored(f"/{_version(v2)}/ocmf", transaction_id, index))


def start_transaction(start: StartRequest, config: Config, v2: bool) -> Request:
    """POST legal, section 3.3. Call ``check_start`` first.

    Raises:
        ParameterError: as ``check_start``.
    """
    check_start(start, config, v2=v2)
    tariff = config.tariff_id if start.tariff_id is None else start.tariff_id
    cable = config.cable_id if start.cable_id is None else start.cable_id
    body: dict[str, Any] = {
        "evseId": start.evse_id,
        "transactionId": start.transaction_id,
        "clientId": client_id(start.identification_data, start.transaction_id),
        "tariffId": tariff,
    }
    if v2:
        body |= {"TT": start.tariff_text, "UV": config.UV, "UD": config.UD}
    body |= {"cableId": cable, "userData": ""}
    if v2:
        body["SC"] = config.SC
    return Request("POST", f"/{_version(v2)}/legal", encode_json(body), expected=201)


def stop_transaction(transaction_id: str, v2: bool) -> Request:
    """PUT legal, section 3.3."""
    query = _encode_id(transaction_id)
    return Request("PUT", f"/{_version(v2)}/legal?transactionId={query}", encode_json({"running": False}))


def get_settings() -> Request:
    return Request("GET", "/v1/settings")


def put_time(now: datetime) -> Request:
    """Set the clock (section 3.4). This switches NTP off in the meter. ``now`` is aware."""
    return _put_settings({"time": {"utc": utc_text(now)}})


def put_timezone(zone: str) -> Request:
    """Raises ConfigError for a zone outside section 2."""
    check_timezone(zone)
    return _put_settings({"time": {"tz": zone}})


def put_dst(rule: Mapping[str, Any]) -> Request:
    """Raises ConfigError for a rule that has not the form of section 3.4."""
    return _put_settings({"time": {"dst": check_dst(rule)}})


def put_ntp(servers: Sequence[tuple[str, int]]) -> Request:
    """NTP on, or off when no server is given; always two servers are sent (section 3.4)."""
    if len(servers) > 2:
        raise ParameterError("The meter takes at most two NTP servers.", "ntp_servers")
    listed = [{"ipAddress": host, "port": port} for host, port in [*servers, ("", 123), ("", 123)][:2]]
    if not servers:
        return _put_settings({"ntp": {"servers": listed, "ntpActivated": False}})
    return _put_settings({"ntp": {"servers": listed, "syncPeriod": SYNC_PERIOD, "ntpActivated": True}})


def put_tls(on: bool) -> Request:
    return _put_settings({"http": {"tls_on": on}})


def put_identification_type(value: int) -> Request:
    """Raises ParameterError outside 0..17."""
    if not 0 <= value < len(IDENTIFICATION_TYPES):
        raise ParameterError(
            f"The identification type must be 0..{len(IDENTIFICATION_TYPES) - 1}, not {value}.", "identification_type"
        )
    return _put_settings({"ocmfId": {"IT": value}})


def get_certificate() -> Request:
    return Request("GET", "/v1/certificate")


def get_logbook() -> Request:
    """May take minutes (section 3.7)."""
    return Request("GET", "/v1/logbook", max_bytes=MAX_LOGBOOK_BYTES)


def sync_requests(config: Config, now: datetime) -> tuple[Request, ...]:
    """The PUTs of one time sync in order (section 7): clock or NTP servers, then zone, then DST where configured.

    ``now`` is the PC's UTC just before sending. Each answer is judged by ``judge_written``; the first failure ends it.
    """
    requests = [put_ntp(config.ntp_servers) if config.ntp_mode else put_time(now)]
    if config.meter_timezone is not None:
        requests.append(put_timezone(config.meter_timezone))
    if config.meter_dst is not None:
        requests.append(put_dst(config.meter_dst))
    return tuple(requests)


def utc_text(moment: datetime) -> str:
    """``YYYY-MM-DDThh:mm:ss.mmmZ``. Raises ParameterError when ``moment`` has no zone."""
    if moment.tzinfo is None:
        raise ParameterError("A time for the meter needs a time zone.", "time")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def client_id(identification_data: str, transaction_id: str) -> str:
    """Identification data, comma, transaction id, cut on a character to 37 bytes of UTF-8 (section 3.3)."""
    return cut_utf8(f"{identification_data},{transaction_id}", TEXT_BYTES)


def cut_utf8(text: str, limit: int) -> str:
    """The longest prefix of whole characters with at most ``limit`` bytes of UTF-8."""
    return text.encode()[:limit].decode(errors="ignore")


def _version(v2: bool) -> str:
    return "v2" if v2 else "v1"


def _put_settings(body: Mapping[str, Any]) -> Request:
    return Request("PUT", "/v1/settings", encode_json(body))


def _encode_id(transaction_id: str) -> str:
    check_transaction_id(transaction_id)
    return quote(transaction_id, safe="")


def _stored(path: str, transaction_id: str, index: int | None) -> str:
    if transaction_id and index is not None:
        raise ParameterError("Ask for a record by transaction id or by index, not by both.", "index")
    if transaction_id:
        return f"{path}?transactionId={_encode_id(transaction_id)}"
    if index is None:
        return path
    if not OLDEST_RECORD <= index < STORED_RECORDS:
        raise ParameterError(
            f"The index of a record must be {OLDEST_RECORD}..{STORED_RECORDS - 1}, not {index}.", "index"
        )
    return f"{path}/{index}"


# ---------------------------------------------------------------- start request


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What the caller asks for. ``tariff_id`` and ``cable_id`` None: as configured."""

    evse_id: str
    transaction_id: str
    identification_data: str = ""
    tariff_text: str = ""
    tariff_id: int | None = None
    cable_id: int | None = None


_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._~-]*")


def check_transaction_id(transaction_id: str) -> tuple[str, ...]:
    """Limits of section 3.3 and characters of section 1; the result holds sentences of warning.

    Raises:
        ParameterError: empty, more than 37 bytes, control characters.
    """
    if not transaction_id:
        raise ParameterError("The transaction id must not be empty.", "transaction_id")
    _check_text("transaction_id", "The transaction id", transaction_id, max_bytes=TEXT_BYTES)
    if _SAFE_ID.fullmatch(transaction_id) is None:
        odd = "".join(sorted({c for c in transaction_id if _SAFE_ID.fullmatch(c) is None}))
        return (f"The transaction id holds characters outside A-Z a-z 0-9 - . _ ~ that meters may refuse: {odd}",)
    return ()


def check_start(start: StartRequest, config: Config | None = None, *, v2: bool = False) -> tuple[str, ...]:
    """Check a start request before anything is sent; the result holds sentences of warning.

    Raises:
        ParameterError: over the limits of section 3.3, control characters, tariff or cable out of range.
    """
    warnings = list(check_transaction_id(start.transaction_id))
    _check_text("evse_id", "The EVSE id", start.evse_id, max_bytes=TEXT_BYTES)
    _check_text("identification_data", "The identification data", start.identification_data)
    _check_text("tariff_text", "The tariff text", start.tariff_text, max_chars=TARIFF_TEXT_CHARS)
    _check_range("tariff_id", "The tariff id", start.tariff_id, 4)
    _check_range("cable_id", "The cable id", start.cable_id, 7)
    if not start.evse_id:
        warnings.append("The EVSE id is empty.")
    for title, text in (("EVSE id", start.evse_id), ("identification data", start.identification_data)):
        if not text.isascii():
            warnings.append(f"The {title} holds characters outside ASCII that the meter may not show as written.")
    whole = f"{start.identification_data},{start.transaction_id}"
    if len(whole.encode()) > TEXT_BYTES:
        warnings.append(
            f"Identification data and transaction id together are longer than {TEXT_BYTES} bytes; "
            f"the meter stores {cut_utf8(whole, TEXT_BYTES)!r}."
        )
    if start.tariff_text and not v2:
        warnings.append("This meter's firmware does not take a tariff text; it is not sent.")
    if config is not None and not v2 and (config.SC or config.UV or config.UD):
        warnings.append("This meter's firmware does not take SC, UV and UD; they are not sent.")
    return tuple(warnings)


def _check_text(
    name: str, title: str, text: str, *, max_bytes: int | None = None, max_chars: int | None = None
) -> None:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ParameterError(f"{title} holds the control character U+{ord(character):04X}.", name)
    if max_bytes is not None and (size := len(text.encode())) > max_bytes:
        raise ParameterError(f"{title} must have at most {max_bytes} bytes of UTF-8, not {size}.", name)
    if max_chars is not None and len(text) > max_chars:
        raise ParameterError(f"{title} must have at most {max_chars} characters, not {len(text)}.", name)


def _check_range(name: str, title: str, value: int | None, maximum: int) -> None:
    if value is not None and (isinstance(value, bool) or not 0 <= value <= maximum):
        raise ParameterError(f"{title} must be 0..{maximum}, not {value}.", name)


MIN_TRANSACTION: Final = timedelta(minutes=2)
MAX_TRANSACTION: Final = timedelta(hours=48) - timedelta(minutes=1)


def stop_window(now: datetime) -> tuple[str, str]:
    """transaction_min_stop_time and transaction_max_stop_time of a start at ``now`` (section 8.1, step 3)."""
    return utc_text(now + MIN_TRANSACTION), utc_text(now + MAX_TRANSACTION)


# ---------------------------------------------------------------- configuration

_ZONE: Final = re.compile(r"([+-])([0-9]{2}):(00|15|30|45)")
_HOUR: Final = re.compile(r"T[0-2][0-9]:[0-5][0-9]Z")
_DAYS: Final = frozenset(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"))
_MONTHS: Final = frozenset(
    (
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    )
)


def check_timezone(zone: str) -> str:
    """``±HH:MM``, -11..+14 h, minutes 00, 15, 30 or 45 (section 2). Raises ConfigError."""
    found = _ZONE.fullmatch(zone)
    if found is not None:
        minutes = (int(found[2]) * 60 + int(found[3])) * (-1 if found[1] == "-" else 1)
        if -11 * 60 <= minutes <= 14 * 60:
            return zone
    raise ConfigError(
        f"{zone[:40]!r} is no time zone of the meter",
        key="meter_timezone",
        expected="±HH:MM from -11:00 to +14:00, minutes 00, 15, 30 or 45",
    )


def check_dst(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The DST object of section 3.4 with exactly its members. Raises ConfigError."""

    def bad(what: str) -> ConfigError:
        return ConfigError(what, key="meter_dst", expected="activated, offset, start and end as in section 3.4")

    if not isinstance(rule, Mapping) or set(rule) != {"activated", "offset", "start", "end"}:
        raise bad("the rule must be an object with activated, offset, start and end")
    if not isinstance(rule["activated"], bool):
        raise bad("activated must be true or false")
    if not isinstance(rule["offset"], int) or isinstance(rule["offset"], bool) or not -1440 < rule["offset"] < 1440:
        raise bad("offset must be whole minutes within a day")
    result: dict[str, Any] = {"activated": rule["activated"], "offset": rule["offset"]}
    for side in ("start", "end"):
        edge = rule[side]
        if not isinstance(edge, Mapping) or set(edge) != {"order", "day", "month", "hour"}:
            raise bad(f"{side} must be an object with order, day, month and hour")
        if not all(isinstance(item, str) for item in edge.values()):
            raise bad(f"the members of {side} must be texts")
        if not edge["order"].isalpha() or edge["day"] not in _DAYS or edge["month"] not in _MONTHS:
            raise bad(f"{side} names no day of the year")
        if _HOUR.fullmatch(edge["hour"]) is None or int(edge["hour"][1:3]) > 23:
            raise bad(f"the hour of {side} must look like T01:00Z")
        result[side] = {name: edge[name] for name in ("order", "day", "month", "hour")}
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration of section 2 with its defaults and ranges. Temperatures in degrees Celsius, hysteresis in K.

    Raises:
        ConfigError: at construction, naming the key, when a value has the wrong type or is out of its range.
    """

    host: str
    port: int = 80
    local_address: str = ""
    tls_certificate: str = ""
    command_timeout_ms: int = 5000
    ntp_server_1_ip_addr: str = ""
    ntp_server_1_port: int = 123
    ntp_server_2_ip_addr: str = ""
    ntp_server_2_port: int = 123
    meter_timezone: str | None = None
    meter_dst: Mapping[str, Any] | None = None
    initial_retries: int = 25
    initial_retry_delay_ms: int = 10000
    transaction_retries: int = 3
    transaction_retry_delay_ms: int = 200
    cable_id: int = 0
    tariff_id: int = 0
    ocmf_identification_type: int = -1
    SC: int = 0
    UV: str = ""
    UD: str = ""
    temperature_warning_C: Decimal = Decimal(5000)
    temperature_error_C: Decimal = Decimal(5000)
    temperature_hysteresis_K: Decimal = Decimal(3)
    temperature_min_time_ms: int = 5000
    poll_interval_ms: int = 1000

    def __post_init__(self) -> None:
        for name, (low, high) in _INTEGERS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low or (high and value > high):
                limits = f"a whole number {low}..{high}" if high else f"a whole number from {low}"
                raise ConfigError(f"{str(value)[:40]!r} is out of its limits", key=name, expected=limits)
        for name in _TEXTS:
            text = getattr(self, name)
            if not isinstance(text, str) or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
                raise ConfigError("the value is not a plain text", key=name, expected="text without control characters")
        if not self.host or any(c.isspace() or c in "/@?#" for c in self.host):
            raise ConfigError(f"{self.host[:60]!r} is no address", key="host", expected="an IP address or a DNS name")
        for name in _DECIMALS:
            number = getattr(self, name)
            if not isinstance(number, Decimal) or not number.is_finite():
                raise ConfigError("the value is not a number", key=name, expected="a finite decimal number")
        if self.temperature_hysteresis_K < 0:
            raise ConfigError(
                f"{self.temperature_hysteresis_K} is negative", key="temperature_hysteresis_K", expected="0 or more"
            )
        if not isinstance(self.tls_certificate, str):
            raise ConfigError("the value is not a text", key="tls_certificate", expected="one PEM certificate or none")
        if self.tls_certificate.strip():
            read_certificate(self.tls_certificate)
        if self.meter_timezone is not None:
            if not isinstance(self.meter_timezone, str):
                raise ConfigError("the value is not a text", key="meter_timezone", expected="±HH:MM")
            check_timezone(self.meter_timezone)
        if self.meter_dst is not None:
            check_dst(self.meter_dst)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Config:
        """Build from a form or a file; numbers may be texts, an empty time zone or DST means "leave alone".

        Raises:
            ConfigError: an unknown key, or as the class.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in known:
                raise ConfigError("there is no such setting", key=str(name), expected=", ".join(sorted(known)))
            if name in ("meter_timezone", "meter_dst") and value in ("", None):
                value = None
            elif name in _INTEGERS and isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
                value = int(value)
            elif name in _DECIMALS and isinstance(value, (str, int, float)) and not isinstance(value, bool):
                try:
                    value = Decimal(str(value).strip())
                except InvalidOperation:
                    raise ConfigError("the value is not a number", key=name, expected="a decimal number") from None
            elif name == "meter_dst" and isinstance(value, str):
                value = _dst_from_text(value)
            values[name] = value
        if "host" not in values:
            raise ConfigError("the setting is missing", key="host", expected="an IP address or a DNS name")
        return cls(**values)

    @property
    def tls(self) -> bool:
        return bool(self.tls_certificate.strip())

    @property
    def base_url(self) -> str:
        """Scheme, host and port; the port is never derived from the scheme (section 1)."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def ntp_mode(self) -> bool:
        return bool(self.ntp_server_1_ip_addr)

    @property
    def ntp_servers(self) -> tuple[tuple[str, int], ...]:
        """Two servers in NTP mode, the second empty when not used; none otherwise."""
        if not self.ntp_mode:
            return ()
        second = (self.ntp_server_2_ip_addr, self.ntp_server_2_port)
        return (self.ntp_server_1_ip_addr, self.ntp_server_1_port), second if second[0] else ("", 123)

    @property
    def error_level_C(self) -> Decimal:
        """The error level, raised to the warning level when it lies below."""
        return max(self.temperature_error_C, self.temperature_warning_C)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the log about values that are used differently from how they are written."""
        found = []
        if self.temperature_error_C < self.temperature_warning_C:
            found.append(
                f"The temperature error level {self.temperature_error_C} °C lies below the warning level; "
                f"{self.temperature_warning_C} °C is used for both."
            )
        if self.ntp_server_2_ip_addr and not self.ntp_mode:
            found.append("The second NTP server is ignored because the first is not set.")
        return tuple(found)


def _dst_from_text(text: str) -> Any:
    try:
        return _read_json(text.encode())
    except (_Fault, UnicodeError):
        raise ConfigError("the text is not a JSON object", key="meter_dst", expected="a DST rule object") from None


_INTEGERS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "port": (1, 65535),
        "command_timeout_ms": (1000, 20000),
        "ntp_server_1_port": (1, 65535),
        "ntp_server_2_port": (1, 65535),
        "initial_retries": (0, 0),
        "initial_retry_delay_ms": (0, 0),
        "transaction_retries": (0, 0),
        "transaction_retry_delay_ms": (0, 0),
        "cable_id": (0, 7),
        "tariff_id": (0, 4),
        "ocmf_identification_type": (-1, 17),
        "SC": (0, 0),
        "temperature_min_time_ms": (0, 0),
        "poll_interval_ms": (1, 0),
    }
)  # lowest, highest; 0 as highest: no limit
_TEXTS: Final = ("host", "local_address", "ntp_server_1_ip_addr", "ntp_server_2_ip_addr", "UV", "UD")
_DECIMALS: Final = ("temperature_warning_C", "temperature_error_C", "temperature_hysteresis_K")


# ---------------------------------------------------------------- reading JSON


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int | str:
    return text if len(text) > MAX_NUMBER_CHARS else int(text)


def _decimal(text: str) -> Decimal | str:
    """A bounded Decimal; a monstrous number stays text and so fails where a number is asked for."""
    if len(text) > MAX_NUMBER_CHARS:
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MAX_NUMBER_CHARS or number.adjusted() > MAX_NUMBER_CHARS:
        return text
    return number


# One JSON escape; the group holds half of a pair that stands alone. Such a text could not be stored.
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)


def _read_json(body: bytes) -> dict[str, Any]:
    """A strict JSON object: UTF-8, no NaN or Infinity, decimals for fractions (section 4). Raises an inner fault."""
    try:
        text = body.decode()
        found = json.loads(text, parse_float=_decimal, parse_int=_integer, parse_constant=_refuse_constant)
    except RecursionError:
        raise _Fault("it is nested too deeply") from None
    except ValueError as exc:
        raise _Fault(f"it is not JSON ({str(exc)[:80]})") from None
    if not isinstance(found, dict):
        raise _Fault("it is not a JSON object")
    if any(mark[1] for mark in _ESCAPE.finditer(text)):
        raise _Fault("it holds half a character")
    return found


def _excerpt(body: bytes) -> str:
    return body[: 4 * EXCERPT_CHARS].decode(errors="replace")[:EXCERPT_CHARS]


def _unusable(request: Request, code: int, body: bytes, what: str) -> UnusableBody:
    return UnusableBody(
        f"{request.name} answered {code} as expected ({request.expected}), but the body cannot be used: {what}. "
        f"Body: {_excerpt(body)}",
        body[:MAX_BODY_BYTES],
    )


def _check_code(request: Request, code: int, body: bytes) -> None:
    if code != request.expected:
        raise UnexpectedStatus(
            f"{request.name} answered {code}, expected {request.expected}. Body: {_excerpt(body)}",
            body[:MAX_BODY_BYTES],
            code,
            request.expected,
        )
    if len(body) > request.max_bytes:
        raise _unusable(request, code, body, f"it is larger than {request.max_bytes} bytes")


def _object(request: Request, code: int, body: bytes) -> dict[str, Any]:
    _check_code(request, code, body)
    try:
        return _read_json(body)
    except _Fault as fault:
        raise _unusable(request, code, body, str(fault)) from None


def _member(raw: Any, name: str) -> dict[str, Any]:
    found = raw.get(name) if isinstance(raw, dict) else None
    return found if isinstance(found, dict) else {}


def _whole(raw: Any) -> int | None:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else None


def _number(raw: Any) -> Decimal | None:
    if isinstance(raw, Decimal):
        return raw
    return Decimal(raw) if isinstance(raw, int) and not isinstance(raw, bool) else None


def _text(raw: Any) -> str:
    return raw if isinstance(raw, str) else ""


def _flag(raw: Any) -> bool | None:
    return raw if isinstance(raw, bool) else None


def plain(value: Any) -> Any:
    """JSON-ready form of a result: decimals as text with every digit, times as ISO 8601, records as objects."""
    match value:
        case Enum():
            return value.value
        case bool() | int() | str() | None:
            return value
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


# ---------------------------------------------------------------- status


class FlagClass(StrEnum):
    BLOCKER = "blocker"  # a start is refused while not nominal
    INDICATOR = "indicator"


@dataclass(frozen=True, slots=True)
class StatusFlag:
    """One row of the table of section 9. ``on`` and ``off`` say in words what the flag means."""

    index: int
    name: str
    nominal: bool
    kind: FlagClass
    on: str
    off: str

    @property
    def value(self) -> int:
        return 1 << self.index


STATUS_FLAGS: Final = (
    StatusFlag(
        0,
        "suLinkStatusIsOk",
        True,
        FlagClass.BLOCKER,
        "The data link to the sensor unit works.",
        "The data link cable to the sensor unit does not work.",
    ),
    StatusFlag(
        1,
        "muFatalErrorOccured",  # the device's spelling
        False,
        FlagClass.BLOCKER,
        "A fatal error occurred: at least one error flag is set.",
        "No fatal error.",
    ),
    StatusFlag(
        2, "transactionIsOnGoing", False, FlagClass.BLOCKER, "A transaction is running.", "No transaction is running."
    ),
    StatusFlag(
        3, "tamperingIsDetected", False, FlagClass.INDICATOR, "Tampering is detected.", "No tampering is detected."
    ),
    StatusFlag(
        4,
        "timeSyncStatusIsOk",
        True,
        FlagClass.BLOCKER,
        "The clock was synchronised within the last 48 hours.",
        "The clock was not synchronised within the last 48 hours.",
    ),
    StatusFlag(
        5,
        "overTemperatureIsDetected",
        False,
        FlagClass.INDICATOR,
        "The sensor unit is too hot.",
        "The sensor unit is not too hot.",
    ),
    StatusFlag(
        6,
        "reversedVoltage",
        False,
        FlagClass.INDICATOR,
        "The voltage is wired backwards; this clears only by a restart.",
        "The voltage is wired the right way round.",
    ),
    StatusFlag(
        7,
        "suMeasureFailureOccurred",
        False,
        FlagClass.INDICATOR,
        "The converter of the sensor unit failed to measure.",
        "The converter of the sensor unit measures.",
    ),
)

ERROR_FLAGS: Final[Mapping[str, tuple[int | None, str]]] = MappingProxyType(
    {
        "muInitIsFailed": (0, "The meter unit failed to start up."),
        "suStateIsInvalid": (1, "The sensor unit is in an invalid state."),
        "versionCheckIsFailed": (2, "The check of the versions failed."),
        "muRngInitIsFailed": (3, "The random number generator of the meter unit failed."),
        "muDataIntegrityIsFailed": (4, "The data of the meter unit are damaged."),
        "muFwIntegrityIsFailed": (5, "The firmware of the meter unit is damaged."),
        "suIntegrityIsFailed": (6, "The sensor unit is damaged."),
        "logbookIntegrityIsFailed": (8, "The logbook is damaged."),
        "logbookIsFull": (None, "The logbook is full; this ends the meter's life."),
        "memoryAccessIsFailed": (None, "The memory cannot be accessed."),
        "muStateIsFailed": (None, "The meter unit is in a failed state."),
    }
)  # section 9: index where known, meaning; decode by name, never by position


@dataclass(frozen=True, slots=True)
class FlagState:
    """One status flag as the meter reports it."""

    name: str
    on: bool
    nominal: bool
    kind: FlagClass
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusWord:
    """The status as value and as bits; both are shown, the bits decide (section 9)."""

    value: int | None = None
    bits: Mapping[str, bool] = field(default_factory=dict)

    @property
    def flags(self) -> tuple[FlagState, ...]:
        """Every flag that is known: from the bits, and from the value where the bits do not tell."""
        found = []
        for row in STATUS_FLAGS:
            on = self.bits.get(row.name)
            if on is None and self.value is not None:
                on = bool(self.value & row.value)
            if on is not None:
                found.append(FlagState(row.name, on, on == row.nominal, row.kind, row.on if on else row.off))
        return tuple(found)

    @property
    def disagreement(self) -> tuple[str, ...]:
        """Names of flags for which value and bits say different things."""
        if self.value is None:
            return ()
        value = self.value
        return tuple(
            row.name for row in STATUS_FLAGS if row.name in self.bits and self.bits[row.name] != bool(value & row.value)
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Sentences for everything that is not nominal, for a disagreement, and for bits outside the table."""
        found = [state.words for state in self.flags if not state.nominal]
        if self.disagreement:
            found.append(
                f"The status value {self.value} and the status bits disagree on {', '.join(self.disagreement)}; "
                "the bits count."
            )
        if self.value is not None and self.value >> len(STATUS_FLAGS):
            found.append(f"The status value {self.value} holds flags this program does not know.")
        return tuple(found)

    @property
    def blockers(self) -> tuple[str, ...]:
        """Sentences for the flags that make the meter refuse a start."""
        return tuple(state.words for state in self.flags if not state.nominal and state.kind is FlagClass.BLOCKER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorWord:
    """The error flags, by name (section 9)."""

    value: int | None = None
    bits: Mapping[str, bool] = field(default_factory=dict)

    @property
    def active(self) -> tuple[str, ...]:
        return tuple(name for name, on in self.bits.items() if on)

    @property
    def words(self) -> tuple[str, ...]:
        found = [ERROR_FLAGS[name][1] if name in ERROR_FLAGS else f"Error flag {name}." for name in self.active]
        if self.value and not found:
            found.append(f"The meter reports the error value {self.value} without naming a flag.")
        elif self.value == 0 and found:
            found.append("The error value is 0 although error flags are set; the flags count.")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterStatus:
    """The status document (section 3.1). Texts are "" and numbers None where the meter does not give them."""

    meter_id: str
    public_key_ocmf: str
    ongoing: bool
    firmware: str
    v2: bool
    public_key: str = ""
    status: StatusWord = field(default_factory=StatusWord)
    errors: ErrorWord = field(default_factory=ErrorWord)
    versions: Mapping[str, str] = field(default_factory=dict)
    time_text: str = ""
    ip_address: str = ""
    last_index: int | None = None
    stored: int | None = None

    @property
    def time(self) -> datetime | None:
        return ocmf.parse_time(self.time_text)

    @property
    def keys(self) -> ocmf.KeyAgreement:
        """Whether the two forms of the public key agree."""
        return ocmf.check_lem_keys(self.public_key_ocmf, self.public_key)

    @property
    def start_warnings(self) -> tuple[str, ...]:
        """What to say before a start (section 8.1): a value other than 17, and every flag that is not nominal."""
        found = []
        if self.status.value is not None and self.status.value != READY:
            found.append(f"The meter's status value is {self.status.value}, not {READY} (ready).")
        return (*found, *self.status.words, *self.errors.words)

    def clock_offset(self, now: datetime) -> timedelta | None:
        """Meter time minus ``now`` (section 7); None when the meter gives no time with a zone. Ask beyond 60 s."""
        moment = self.time
        return None if moment is None or moment.tzinfo is None else moment - now

    def to_json(self) -> dict[str, Any]:
        return {
            **plain(self),
            "flags": plain(self.status.flags),
            "status_words": list(self.status.words),
            "error_words": list(self.errors.words),
            "keys_agree": self.keys.agrees,
        }


def is_v2(firmware: str) -> bool:
    """The v2 rule of section 3.1: four parts, the second a number greater than 1."""
    parts = firmware.split(".")
    return len(parts) == 4 and re.fullmatch(r"[0-9]{1,18}", parts[1]) is not None and int(parts[1]) > 1


def judge_status(request: Request, code: int, body: bytes) -> MeterStatus:
    """Judge GET status. Raises UnexpectedStatus, UnusableBody (section 4)."""
    found = _object(request, code, body)
    status = _member(found, "status")
    bits = _member(status, "bits")
    errors = _member(found, "errors")
    version = _member(found, "version")
    meter_id = found.get("meterId")
    key = found.get("publicKeyOcmf")
    ongoing = bits.get("transactionIsOnGoing")
    firmware = version.get("applicationFirmwareVersion")
    if not isinstance(meter_id, str) or not meter_id:
        raise _unusable(request, code, body, "meterId is not a text with content")
    if not isinstance(key, str):
        raise _unusable(request, code, body, "publicKeyOcmf is not a text")
    if not isinstance(ongoing, bool):
        raise _unusable(request, code, body, "status.bits.transactionIsOnGoing is not true or false")
    if not isinstance(firmware, str):
        raise _unusable(request, code, body, "version.applicationFirmwareVersion is not a text")
    return MeterStatus(
        meter_id=meter_id,
        public_key_ocmf=key,
        ongoing=ongoing,
        firmware=firmware,
        v2=is_v2(firmware),
        public_key=_text(found.get("publicKey")),
        status=StatusWord(value=_flag_value(status.get("value")), bits=_booleans(bits)),
        errors=ErrorWord(value=_flag_value(errors.get("value")), bits=_booleans(_member(errors, "bits"))),
        versions={name: item for name, item in version.items() if isinstance(item, str)},
        time_text=_text(found.get("time")),
        ip_address=_text(found.get("ipAddress")),
        last_index=_whole(found.get("indexOfLastTransaction")),
        stored=_whole(found.get("numberOfStoredTransactions")),
    )


def _flag_value(raw: Any) -> int | None:
    value = _whole(raw)
    return value if value is not None and value >= 0 else None


def _booleans(raw: Mapping[str, Any]) -> Mapping[str, bool]:
    return {name: item for name, item in raw.items() if isinstance(item, bool)}


# ---------------------------------------------------------------- live values

_SCALING: Final = Context(prec=200)


def _thousandfold(number: Decimal) -> Decimal:
    """Exactly number x 1000 without an exponent in its text: kW to W, kWh to Wh."""
    scaled = number.scaleb(3, _SCALING)
    exponent = scaled.as_tuple().exponent
    return scaled.quantize(Decimal(1), context=_SCALING) if isinstance(exponent, int) and exponent > 0 else scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSample:
    """One sample (section 12). Positive power and current = import, to the vehicle. Exact decimals."""

    timestamp: str  # as received
    meter_id: str
    voltage_v: Decimal
    current_a: Decimal
    power_w: Decimal
    energy_import_wh: Decimal
    energy_export_wh: Decimal
    temperatures: tuple[tuple[str, Decimal], ...]  # sensor name, degrees Celsius

    @property
    def time(self) -> datetime | None:
        """The timestamp, without zone where the meter gives none."""
        return ocmf.parse_time(self.timestamp)

    @property
    def max_temperature(self) -> Decimal:
        return max(value for _name, value in self.temperatures)

    def to_json(self) -> dict[str, Any]:
        return {**plain(self), "temperatures": {name: plain(value) for name, value in self.temperatures}}


LIVE_FIELDS: Final = (
    "voltage",
    "current",
    "power",
    "temperatureH",
    "temperatureL",
    "energyImportTotal",
    "energyExportTotal",
)


def judge_live(request: Request, code: int, body: bytes, meter_id: str) -> LiveSample:
    """Judge GET livemeasure (section 3.2); ``meter_id`` is put in. Raises UnexpectedStatus, UnusableBody."""
    found = _object(request, code, body)
    values: dict[str, Decimal] = {}
    for name in LIVE_FIELDS:
        number = _number(found.get(name))
        if number is None:
            raise _unusable(request, code, body, f"{name} is not a usable number")
        values[name] = number
    timestamp = found.get("timestamp")
    if not isinstance(timestamp, str):
        raise _unusable(request, code, body, "timestamp is not a text")
    return LiveSample(
        timestamp=timestamp,
        meter_id=meter_id,
        voltage_v=values["voltage"],
        current_a=values["current"],
        power_w=_thousandfold(values["power"]),
        energy_import_wh=_thousandfold(values["energyImportTotal"]),
        energy_export_wh=_thousandfold(values["energyExportTotal"]),
        temperatures=tuple((name, values[name]) for name in ("temperatureH", "temperatureL")),
    )


# ---------------------------------------------------------------- transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalState:
    """The current transaction, or the last. ``known`` is False when the meter has no such route (404, 405)."""

    known: bool
    transaction_id: str = ""
    document: LegalDocument | None = None

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = plain(self)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalDocument:
    """The legal document of section 3.3. Missing or mistyped optional members are "" or None; energies in Wh.

    ``duration`` is in seconds, as far as is known (section 19).
    """

    transaction_id: str = ""
    transaction_status: int | None = None
    evse_id: str = ""
    client_id: str = ""
    pagination: int | None = None
    tariff_id: int | None = None
    cable_name: str = ""
    cable_id: int | None = None
    cable_resistance: Decimal | None = None
    started: str = ""
    stopped: str = ""
    duration: Decimal | None = None
    energy_import_wh: Decimal | None = None
    energy_export_wh: Decimal | None = None
    meter_id: str = ""
    signature: str = ""
    public_key: str = ""

    @property
    def status(self) -> StatusWord:
        return StatusWord(value=self.transaction_status)

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = plain(self)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAnswer:
    """What the meter echoed of a start. Everything beside ``running`` is optional."""

    running: bool
    evse_id: str = ""
    transaction_id: str = ""
    client_id: str = ""
    tariff_id: int | None = None
    cable_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = plain(self)
        return result


def judge_legal(request: Request, code: int, body: bytes) -> LegalState:
    """Judge GET legal; 404 and 405 mean "id unknown". Raises UnexpectedStatus, UnusableBody."""
    if code in (404, 405):
        return LegalState(known=False)
    found = _object(request, code, body)
    transaction_id = found.get("transactionId")
    if not isinstance(transaction_id, str):
        raise _unusable(request, code, body, "transactionId is not a text")
    return LegalState(known=True, transaction_id=transaction_id, document=_legal_document(found))


def judge_start(request: Request, code: int, body: bytes) -> StartAnswer:
    """Judge POST legal: 201 and ``running`` true. Raises UnexpectedStatus, UnusableBody."""
    found = _object(request, code, body)
    if found.get("running") is not True:
        raise _unusable(request, code, body, "running is not true")
    return StartAnswer(
        running=True,
        evse_id=_text(found.get("evseId")),
        transaction_id=_text(found.get("transactionId")),
        client_id=_text(found.get("clientId")),
        tariff_id=_whole(found.get("tariffId")),
        cable_id=_whole(found.get("cableId")),
    )


def judge_stop(request: Request, code: int, body: bytes) -> LegalDocument:
    """Judge PUT legal: 200 and ``transactionStatus`` with bit 2 clear. Raises UnexpectedStatus, UnusableBody."""
    found = _object(request, code, body)
    status = _flag_value(_member(found, "meterValue").get("transactionStatus"))
    if status is None:
        raise _unusable(request, code, body, "meterValue.transactionStatus is not a whole number")
    if status & TRANSACTION_BIT:
        raise _unusable(request, code, body, f"the transaction still runs (transactionStatus {status})")
    return _legal_document(found)


def _legal_document(found: Mapping[str, Any]) -> LegalDocument:
    value = _member(found, "meterValue")
    sample = _member(value, "sampleValue")
    cable = _member(found, "cableSp")
    unit = _text(sample.get("energyUnit"))
    return LegalDocument(
        transaction_id=_text(found.get("transactionId")),
        transaction_status=_flag_value(value.get("transactionStatus")),
        evse_id=_text(found.get("evseId")),
        client_id=_text(found.get("clientId")),
        pagination=_whole(found.get("paginationCounter")),
        tariff_id=_whole(found.get("tariffId")),
        cable_name=_text(cable.get("cableSpName")),
        cable_id=_whole(cable.get("cableSpId")),
        cable_resistance=_number(cable.get("cableSpRes")),
        started=_text(value.get("timestampStart")),
        stopped=_text(value.get("timestampStop")),
        duration=_number(value.get("transactionDuration")),
        energy_import_wh=_energy(sample.get("energyImport"), unit),
        energy_export_wh=_energy(sample.get("energyExport"), unit),
        meter_id=_text(found.get("meterId")),
        signature=_text(found.get("signature")),
        public_key=_text(found.get("publicKey")),
    )


def _energy(raw: Any, unit: str) -> Decimal | None:
    number = _number(raw)
    match unit:
        case "kWh":
            return None if number is None else _thousandfold(number)
        case "Wh":
            return number
        case _:
            return None


def judge_ocmf(request: Request, code: int, body: bytes) -> bytes:
    """Judge GET ocmf: 200 and not empty. The result is the record exactly as received."""
    _check_code(request, code, body)
    if not body.strip():
        raise _unusable(request, code, body, "it is empty")
    return body


class StopFindingCode(StrEnum):
    FLAGS = "FLAGS"
    CABLE = "CABLE"
    SERIAL = "SERIAL"
    UNCHECKED = "UNCHECKED"


@dataclass(frozen=True, slots=True)
class StopFinding:
    """Something to tell the person after a stop."""

    code: StopFindingCode
    sentence: str


def check_after_stop(
    transaction_status: int | None, record: ocmf.Record | None, *, cable_id: int, meter_id: str
) -> tuple[StopFinding, ...]:
    """The checks of section 8.2, last paragraph.

    Args:
        transaction_status: of the stop document; None when the stop was not asked for again.
        record: the payload of the OCMF record, None when it cannot be read.
        cable_id: as sent with the start; meter_id: as the status document gave it.
    """
    found: list[StopFinding] = []
    if transaction_status is not None and transaction_status != READY:
        words = " ".join(StatusWord(value=transaction_status).words)
        found.append(
            StopFinding(
                StopFindingCode.FLAGS,
                f"The transaction ended with status {transaction_status} instead of {READY}. {words}".rstrip(),
            )
        )
    if record is None:
        sentence = "The record cannot be read, so its cable and serial number were not compared."
        return (*found, StopFinding(StopFindingCode.UNCHECKED, sentence))
    if record.cable_id != cable_id:
        stated = "no cable" if record.cable_id is None else f"cable {record.cable_id}"
        found.append(
            StopFinding(StopFindingCode.CABLE, f"The record states {stated}, the start was sent with {cable_id}.")
        )
    if meter_id not in (record.own_meter_serial, record.gateway_serial):
        found.append(
            StopFinding(
                StopFindingCode.SERIAL,
                f"The record is of meter {record.meter_serial[:40] or '(no serial)'}, not of {meter_id[:40]}.",
            )
        )
    return tuple(found)


# ---------------------------------------------------------------- settings, logbook


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSettings:
    """What is known of GET settings (section 3.4). None: the meter did not say."""

    identification_type: int
    ntp_activated: bool | None = None
    ntp_servers: tuple[tuple[str, int | None], ...] = ()
    tls_on: bool | None = None
    utc: str = ""
    timezone: str = ""

    @property
    def identification_name(self) -> str:
        return identification_name(self.identification_type)

    def to_json(self) -> dict[str, Any]:
        return {**plain(self), "identification_name": self.identification_name}


def identification_name(value: int) -> str:
    """Name of an identification type (section 3.4), or "unknown (n)"."""
    return IDENTIFICATION_TYPES[value] if 0 <= value < len(IDENTIFICATION_TYPES) else f"unknown ({value})"


def judge_settings(request: Request, code: int, body: bytes) -> MeterSettings:
    """Judge GET settings: ``ocmfId.IT`` must be an integer. Raises UnexpectedStatus, UnusableBody."""
    found = _object(request, code, body)
    kind = _whole(_member(found, "ocmfId").get("IT"))
    if kind is None:
        raise _unusable(request, code, body, "ocmfId.IT is not a whole number")
    ntp = _member(found, "ntp")
    activated = _flag(ntp.get("ntpActivated"))
    servers = ntp.get("servers")
    time = _member(found, "time")
    return MeterSettings(
        identification_type=kind,
        ntp_activated=_flag(ntp.get("activated")) if activated is None else activated,
        ntp_servers=tuple(
            (_text(server.get("ipAddress")), _whole(server.get("port")))
            for server in (servers if isinstance(servers, list) else ())
            if isinstance(server, dict)
        ),
        tls_on=_flag(_member(found, "http").get("tls_on")),
        utc=_text(time.get("utc")),
        timezone=_text(time.get("tz")),
    )


def judge_written(request: Request, code: int, body: bytes) -> str:
    """Judge PUT settings: ``result`` is the number 1. The result is the meter id, "" when not given.

    Raises:
        UnexpectedStatus, UnusableBody
    """
    found = _object(request, code, body)
    result = _number(found.get("result"))
    if result is None or result != 1:
        what = "the meter refused (result 0)" if result == 0 else "result is not the number 1"
        raise _unusable(request, code, body, what)
    return _text(found.get("meterId"))


@dataclass(frozen=True, slots=True)
class LogbookEntry:
    """One event of the meter's logbook."""

    timestamp: str
    event: str
    status: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logbook:
    meter_id: str
    entries: tuple[LogbookEntry, ...]

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = plain(self)
        return result


def judge_logbook(request: Request, code: int, body: bytes) -> Logbook:
    """Judge GET logbook (section 3.7): ``logbook`` is a list of objects. Raises UnexpectedStatus, UnusableBody."""
    found = _object(request, code, body)
    listed = found.get("logbook")
    if not isinstance(listed, list):
        raise _unusable(request, code, body, "logbook is not a list")
    entries = []
    for number, item in enumerate(listed, 1):
        if not isinstance(item, dict):
            raise _unusable(request, code, body, f"entry {number} of the logbook is not an object")
        status = item.get("status")
        entries.append(
            LogbookEntry(
                _text(item.get("timestamp")),
                _text(item.get("eventCode")),
                tuple(name for name in status if isinstance(name, str)) if isinstance(status, list) else (),
            )
        )
    return Logbook(meter_id=_text(found.get("meterId")), entries=tuple(entries))


# ---------------------------------------------------------------- certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate: its DER bytes and what a person compares before it is pinned (section 10)."""

    der: bytes
    subject: str
    sha256: str  # upper-case hex, bytes separated by colons
    not_before: datetime
    not_after: datetime
    key_type: str
    key_bits: int | None

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """Sentences about its validity at ``now`` (aware); an expired pin still connects (section 10)."""
        if now > self.not_after:
            return (f"The certificate expired on {self.not_after:%Y-%m-%d}; it is still used as the pin.",)
        if now < self.not_before:
            return (f"The certificate is valid only from {self.not_before:%Y-%m-%d}; it is still used as the pin.",)
        return ()

    @property
    def pem(self) -> str:
        """The certificate as well-formed PEM."""
        body = base64.b64encode(self.der).decode()
        lines = [body[at : at + 64] for at in range(0, len(body), 64)]
        return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = plain(self)
        return result


_PEM_MARK: Final = re.compile(r"-----\s*(BEGIN|END)\s*([A-Z0-9 ]{0,40}?)\s*-----")


def read_certificate(text: str) -> Certificate:
    """Repair and read one PEM certificate (section 10).

    Line breaks may be missing after BEGIN, before END or everywhere, or stand as the two characters ``\\n``.
    Raises:
        ConfigError: not exactly one certificate, or not a certificate.
    """

    def bad(what: str) -> ConfigError:
        return ConfigError(what, key="tls_certificate", expected="exactly one PEM certificate")

    if len(text) > MAX_BODY_BYTES:
        raise bad("the text is too long")
    whole = text.replace("\\r", "\n").replace("\\n", "\n")
    marks = list(_PEM_MARK.finditer(whole))
    kinds = [(mark[1], mark[2].replace(" ", "")) for mark in marks]
    if kinds != [("BEGIN", "CERTIFICATE"), ("END", "CERTIFICATE")]:
        raise bad(f"the text holds {sum(kind == ('BEGIN', 'CERTIFICATE') for kind in kinds)} certificates")
    packed = re.sub(r"\s+", "", whole[marks[0].end() : marks[1].start()])
    try:
        der = base64.b64decode(packed, validate=True)
        found = x509.load_der_x509_certificate(der)
        not_before, not_after = found.not_valid_before_utc, found.not_valid_after_utc
        subject = found.subject.rfc4514_string()
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise bad("the text between the marks is not a certificate") from None
    key_type, bits = _key_of(found)
    return Certificate(
        der=der,
        subject=subject,
        sha256=found.fingerprint(hashes.SHA256()).hex(":").upper(),
        not_before=not_before,
        not_after=not_after,
        key_type=key_type,
        key_bits=bits,
    )


def _key_of(certificate: x509.Certificate) -> tuple[str, int | None]:
    try:
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "unknown", None
    match key:
        case rsa.RSAPublicKey():
            return "RSA", key.key_size
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}", key.key_size
        case _:
            return "other", None


def judge_certificate(request: Request, code: int, body: bytes) -> Certificate:
    """Judge GET certificate. Raises UnexpectedStatus, UnusableBody."""
    found = _object(request, code, body)
    text = found.get("certificate")
    if not isinstance(text, str):
        raise _unusable(request, code, body, "certificate is not a text")
    try:
        return read_certificate(text)
    except ConfigError as error:
        raise _unusable(request, code, body, str(error)) from None


# ---------------------------------------------------------------- temperature


class TemperatureLevel(StrEnum):
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TemperatureEvent:
    """A level was raised or cleared; ``maximum`` is the hotter sensor in degrees Celsius."""

    level: TemperatureLevel
    raised: bool
    maximum: Decimal

    @property
    def sentence(self) -> str:
        if not self.raised:
            return f"The temperature {self.level} is over: {self.maximum} °C."
        ask = " Please stop the session." if self.level is TemperatureLevel.ERROR else ""
        return f"Temperature {self.level}: {self.maximum} °C.{ask}"


class _Level:
    def __init__(self, name: TemperatureLevel, limit: Decimal) -> None:
        self.name = name
        self.limit = limit
        self.active = False
        self.since: float | None = None


class TemperatureMonitor:
    """The two levels of section 11. ``now`` is a monotonic time in seconds; nothing here reads a clock."""

    GAP_S: Final = 5.0  # section 11 (D): a longer gap restarts a running timer

    def __init__(self, config: Config) -> None:
        self._hysteresis = config.temperature_hysteresis_K
        self._min_time_us = config.temperature_min_time_ms * 1000
        self._levels = (
            _Level(TemperatureLevel.WARNING, config.temperature_warning_C),
            _Level(TemperatureLevel.ERROR, config.error_level_C),
        )
        self._last: float | None = None

    @property
    def active(self) -> frozenset[TemperatureLevel]:
        return frozenset(level.name for level in self._levels if level.active)

    def feed(self, maximum: Decimal, now: float) -> tuple[TemperatureEvent, ...]:
        """Take one good sample; the result holds what it raised or cleared, warning before error."""
        if self._last is not None and now - self._last > self.GAP_S:
            for level in self._levels:
                level.since = None
        self._last = now
        return tuple(
            TemperatureEvent(level.name, level.active, maximum)
            for level in self._levels
            if self._changes(level, maximum, now)
        )

    def _changes(self, level: _Level, maximum: Decimal, now: float) -> bool:
        if level.active:
            if maximum < level.limit - self._hysteresis:
                level.active, level.since = False, None
                return True
            return False
        if maximum < level.limit:
            level.since = None
            return False
        if level.since is None:
            level.since = now
        if round((now - level.since) * 1_000_000) < self._min_time_us:
            return False
        level.active = True
        return True


# ---------------------------------------------------------------- time sync

UNSAFE_S: Final = 120.0  # section 7: settings written right after power-up may be lost
RETRY_S: Final = 60.0
RENEWAL_S: Final = 24 * 3600.0
CLOCK_OFFSET_LIMIT: Final = timedelta(seconds=60)  # beyond it ask before the first sync


class TimeSync:
    """When to synchronise (section 7). Times are monotonic seconds given by the caller."""

    def __init__(
        self,
        *,
        ntp: bool,
        initialised: float,
        unsafe_s: float = UNSAFE_S,
        retry_s: float = RETRY_S,
        renewal_s: float = RENEWAL_S,
    ) -> None:
        self._ntp = ntp
        self._retry_s = retry_s
        self._renewal_s = renewal_s
        self._safe_from = initialised + unsafe_s
        self._due = self._safe_from
        self._saved = False

    @property
    def ntp_saved(self) -> bool:
        """NTP settings were written after the unsafe period, zone and DST included."""
        return self._saved

    @property
    def due(self) -> float:
        return self._due

    def wanted_before_start(self) -> bool:
        """Whether a start attempt sends a sync first: always, but not once NTP is saved."""
        return not self._saved

    def periodic_due(self, now: float, *, ongoing: bool) -> bool:
        """Whether this poll cycle begins with a sync."""
        return not self._saved and not ongoing and now >= self._due

    def succeeded(self, sent: float, now: float) -> None:
        """Every PUT of a sync succeeded; ``sent`` is when the first left, which decides whether it was safe."""
        safe = sent >= self._safe_from
        self._due = now + (self._renewal_s if safe else self._retry_s)
        self._saved = self._saved or (self._ntp and safe)

    def refused(self, now: float) -> None:
        """A periodic sync met a response failure. After a transport failure nothing is called: the due time stays."""
        self._due = now + self._retry_s
