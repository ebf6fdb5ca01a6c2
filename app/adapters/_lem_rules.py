"""What the LEM DCBM adapter offers: connection form, commands, times. Tables only (specs/lem-dcbm.md sections 2 and 3).

The times follow from the connection's own settings, because "N retries" of 20 s each is something else than of 1 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from app.errors import ParameterError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Resend, Risk, check_params
from app.protocols import lem_dcbm as lem

NOT_INITIALISED: Final = "Powermeter is not initialized"  # section 5, exact
NOTHING_OPEN: Final = "No dangling transaction open"  # section 8.2, exact
UNEXPECTED_ERROR: Final = "UNEXPECTED_ERROR"

LONGEST_CYCLE: Final = 7  # requests: three of a sync, live, record, status, legal
SPARE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times that the specification fixes; tests and simulators shorten them."""

    unsafe_s: float = lem.UNSAFE_S  # section 7
    sync_retry_s: float = lem.RETRY_S
    sync_renewal_s: float = lem.RENEWAL_S
    record_s: float = 10.0  # section 6, step 3
    status_s: float = 30.0  # ours: flags while nothing happens
    repeat_error_s: float = 60.0  # ours: the same response error is not told more often
    tls_switch_s: float = 60.0  # section 10
    tls_poll_s: float = 1.0
    logbook_s: float = 300.0  # section 3.7: "may take minutes"


# ---------------------------------------------------------------- the connection form (section 2)


def _integer(
    name: str,
    title: str,
    default: int,
    low: int,
    high: int,
    *,
    unit: str = "",
    description: str = "",
) -> ParamSpec:
    return ParamSpec(
        name=name,
        title=title,
        type=ParamType.INTEGER,
        unit=unit,
        required=False,
        default=default,
        minimum=low,
        maximum=high,
        help=description,
    )


def _text(name: str, title: str, description: str = "", *, max_bytes: int | None = None) -> ParamSpec:
    return ParamSpec(name=name, title=title, required=False, default="", help=description, max_bytes=max_bytes)


def _celsius(name: str, title: str, default: int, description: str, *, unit: str = "°C") -> ParamSpec:
    return ParamSpec(
        name=name,
        title=title,
        type=ParamType.DECIMAL,
        unit=unit,
        required=False,
        default=Decimal(default),
        minimum=0 if unit == "K" else None,
        help=description,
    )


HOUR_MS: Final = 3_600_000
ZONE_PATTERN: Final = r"[+-](?:0[0-9]|1[0-4]):(?:00|15|30|45)"

FORM: Final[tuple[ParamSpec, ...]] = (
    ParamSpec(
        name="host", title="Address", max_bytes=253, pattern=r"[^\s/@?#]+",
        help="IP address or name of the meter. Meters leave the factory with 192.168.1.2.",
    ),
    _integer("port", "Port", 80, 1, 65535, description="80 also with TLS: switching TLS on does not move the port."),
    _text("local_address", "Local address", "Source address on this computer; empty: the system chooses."),
    ParamSpec(
        name="tls_certificate", title="Pinned TLS certificate", type=ParamType.PEM, required=False, default="",
        help="The meter's certificate as PEM. When it is filled in, the connection uses TLS and accepts only it.",
    ),
    _integer("command_timeout_ms", "Answer within", 5000, 1000, 20000, unit="ms", description="Of one whole request."),
    _text("ntp_server_1_ip_addr", "First time server",
          "Address or name. When it is filled in, the meter keeps time by NTP instead of by this computer's clock."),
    _integer("ntp_server_1_port", "First time server, port", 123, 1, 65535),
    _text("ntp_server_2_ip_addr", "Second time server", "Ignored without the first one."),
    _integer("ntp_server_2_port", "Second time server, port", 123, 1, 65535),
    ParamSpec(
        name="meter_timezone", title="Time zone of the meter", required=False, pattern=ZONE_PATTERN,
        help="±HH:MM from -11:00 to +14:00; empty: the meter's own setting stays as it is.",
    ),
    ParamSpec(
        name="meter_dst", title="Daylight saving of the meter", required=False,
        help="A rule as JSON with activated, offset, start and end; empty: the meter's own setting stays as it is.",
    ),
    _integer("initial_retries", "Tries to connect, beyond the first", 25, 0, 10000),
    _integer("initial_retry_delay_ms", "Time between them", 10000, 0, HOUR_MS, unit="ms"),
    _integer("transaction_retries", "Tries to start or stop, beyond the first", 3, 0, 100),
    _integer("transaction_retry_delay_ms", "Time between them", 200, 0, 60_000, unit="ms"),
    _integer("cable_id", "Cable", 0, 0, 7, description="Entry in the meter's table of loss compensation."),
    _integer("tariff_id", "Tariff", 0, 0, 4),
    _integer("ocmf_identification_type", "Identification type to enforce", -1, -1, 17,
             description="-1: leave the meter alone. The manufacturer asks that this be set once in the meter's life."),
    _integer("SC", "SC", 0, 0, 1_000_000, description="Only sent to newer firmware (v2)."),
    _text("UV", "UV", "Only sent to newer firmware (v2).", max_bytes=250),
    _text("UD", "UD", "Only sent to newer firmware (v2).", max_bytes=250),
    _celsius("temperature_warning_C", "Warn from", 5000, "5000 switches the warning off in practice."),
    _celsius("temperature_error_C", "Ask to stop from", 5000, "Never used below the warning level."),
    _celsius("temperature_hysteresis_K", "Cleared below the level by", 3, "", unit="K"),
    _integer("temperature_min_time_ms", "Only when it lasts", 5000, 0, HOUR_MS, unit="ms"),
    _integer("poll_interval_ms", "Time between live values", 1000, 200, HOUR_MS, unit="ms"),
)  # fmt: skip


# ---------------------------------------------------------------- commands

IDENTIFICATION_CHOICES: Final = tuple((value, name) for value, name in enumerate(lem.IDENTIFICATION_TYPES))
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS: Final = (
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
_ORDERS: Final = ("first", "second", "third", "fourth", "last")


def _choice(name: str, title: str, words: tuple[str, ...], default: str) -> ParamSpec:
    return ParamSpec(
        name=name,
        title=title,
        type=ParamType.CHOICE,
        required=False,
        default=default,
        choices=tuple((word, word.capitalize()) for word in words),
    )


def _edge(side: str, title: str, month: str) -> tuple[ParamSpec, ...]:
    return (
        _choice(f"{side}_order", f"{title}: which", _ORDERS, "last"),
        _choice(f"{side}_day", f"{title}: day", _DAYS, "sunday"),
        _choice(f"{side}_month", f"{title}: month", _MONTHS, month),
        ParamSpec(
            name=f"{side}_hour",
            title=f"{title}: hour",
            required=False,
            default="T01:00Z",
            pattern=r"T[0-2][0-9]:[0-5][0-9]Z",
            help="In UTC, for example T01:00Z.",
        ),
    )


_TRANSACTION = ParamSpec(
    name="transaction_id",
    title="Transaction",
    required=False,
    default="",
    max_bytes=lem.TEXT_BYTES,
    help="1 to 37 bytes. Empty: the running one, else the last.",
)
_INDEX = ParamSpec(
    name="index",
    title="Number of the record",
    type=ParamType.INTEGER,
    required=False,
    minimum=lem.OLDEST_RECORD,
    maximum=lem.STORED_RECORDS - 1,
    help="-1 is the last, -2 the one before it; 0 and up are places in the meter's memory.",
)
UNSAFE_NOTE: Final = "The meter may lose a setting that is written in its first two minutes after power-up."


def _read(name: str, title: str, *params: ParamSpec, description: str = "", **more: Any) -> CommandSpec:
    return CommandSpec(name=name, title=title, kind=CommandKind.READ, params=params, help=description, **more)


def _write(
    name: str,
    title: str,
    *params: ParamSpec,
    risk: Risk = Risk.WRITE,
    resend: Resend = Resend.SAFE,
    warning: str = UNSAFE_NOTE,
    description: str = "",
    **more: Any,
) -> CommandSpec:
    return CommandSpec(
        name=name,
        title=title,
        kind=CommandKind.WRITE,
        params=params,
        risk=risk,
        resend=resend,
        warning=warning,
        help=description,
        **more,
    )


def settings_of(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Checked settings, or the defaults while somebody is still typing."""
    try:
        return check_params(FORM, given, "The connection")
    except ParameterError:
        return {spec.name: spec.default for spec in FORM}


def read_timeout_s(settings: Mapping[str, Any], requests: int = 1) -> float:
    """Longest time of a command of ``requests`` requests: the poll cycle in flight comes first (section 1)."""
    return (LONGEST_CYCLE + requests) * int(settings["command_timeout_ms"]) / 1000 + SPARE_S


def _retried_timeout_s(settings: Mapping[str, Any], requests: int, first: int) -> float:
    retries = settings["transaction_retries"]
    waits = retries * settings["transaction_retry_delay_ms"] / 1000
    return read_timeout_s(settings, first + (1 + retries) * requests) + float(waits)


def commands(given: Mapping[str, Any], pace: Pace) -> tuple[CommandSpec, ...]:
    """All commands; ``given`` are the device's settings as stored."""
    settings = settings_of(given)
    # A start: one stop of a left-over transaction, then per try the sync (up to three) and the POST.
    start_s = _retried_timeout_s(settings, 4, 1)
    stop_s = _retried_timeout_s(settings, 2, 0)
    return (
        _read("READ_STATUS", "Read status", description="Flags, firmware, keys and the meter's clock."),
        _read("READ_LIVE", "Read live values"),
        _read("READ_LEGAL", "Read transaction document", _TRANSACTION, _INDEX,
              description="The running transaction, else the last; or one by its id or number."),
        _read("READ_SETTINGS", "Read settings"),
        _read("READ_CERTIFICATE", "Read TLS certificate",
              description="Shows the certificate and its fingerprint; compare them before switching TLS on."),
        _read("READ_RECORD", "Read signed record", _TRANSACTION, _INDEX,
              description="The OCMF record by id or number, else the current or last one, with its verdict."),
        _read("READ_LOGBOOK", "Read logbook",
              description="May take minutes, during which no live values are read.",
              warning="The meter is busy for minutes. Read the logbook only when it is needed.",
              answer_timeout_s=read_timeout_s(settings) + pace.logbook_s),
        CommandSpec(
            name="START_TRANSACTION", title="Start transaction", kind=CommandKind.CONTROL,
            risk=Risk.DANGEROUS, resend=Resend.NEVER, verb="Start on {device}",
            params=(
                ParamSpec(name="evse_id", title="EVSE id", required=False, default="", max_bytes=lem.TEXT_BYTES),
                ParamSpec(name="transaction_id", title="Transaction", max_bytes=lem.TEXT_BYTES,
                          help="1 to 37 bytes; letters, digits and - . _ ~ are safe."),
                ParamSpec(name="identification_data", title="Identification data", required=False, default="",
                          help="For example a card number. With the transaction id it is cut to 37 bytes."),
                ParamSpec(name="tariff_text", title="Tariff text", required=False, default="",
                          help="Up to 250 characters; only newer firmware (v2) takes it."),
                ParamSpec(name="tariff_id", title="Tariff", type=ParamType.INTEGER, required=False,
                          default=settings["tariff_id"], minimum=0, maximum=4),
                ParamSpec(name="cable_id", title="Cable", type=ParamType.INTEGER, required=False,
                          default=settings["cable_id"], minimum=0, maximum=7),
            ),
            help="The clock is set first. A transaction that still runs is stopped before.",
            warning="A signed transaction begins. Ones shorter than two minutes wear the meter's memory.",
            answer_timeout_s=start_s,
        ),
        CommandSpec(
            name="STOP_TRANSACTION", title="Stop transaction", kind=CommandKind.CONTROL,
            risk=Risk.DANGEROUS, resend=Resend.NEVER, verb="Stop on {device}",
            params=(_TRANSACTION,),
            help="Ends the transaction and fetches its signed record.",
            warning="The transaction ends for good.",
            answer_timeout_s=stop_s,
        ),
        _write("SYNC_TIME", "Synchronise clock",
               description="Sets the clock, or the time servers, and zone and daylight saving where configured."),
        _write("SET_TIME", "Set clock",
               ParamSpec(name="time", title="Time", type=ParamType.TIME, required=False,
                         help="With a zone; empty: this computer's time now."),
               warning="Setting the clock switches NTP off in the meter. " + UNSAFE_NOTE),
        _write("SET_NTP", "Set time servers",
               _text("server_1", "First time server", "Empty: NTP is switched off."),
               _integer("port_1", "First port", 123, 1, 65535),
               _text("server_2", "Second time server"),
               _integer("port_2", "Second port", 123, 1, 65535)),
        _write("SET_TIMEZONE", "Set time zone",
               ParamSpec(name="timezone", title="Time zone", pattern=ZONE_PATTERN,
                         help="±HH:MM from -11:00 to +14:00")),
        _write("SET_DST", "Set daylight saving",
               ParamSpec(name="activated", title="In use", type=ParamType.BOOLEAN),
               _integer("offset", "Shift", 60, -1439, 1439, unit="min"),
               *_edge("start", "Begin", "march"), *_edge("end", "End", "october")),
        _write("SET_TLS", "Switch TLS",
               ParamSpec(name="on", title="TLS", type=ParamType.BOOLEAN),
               ParamSpec(name="fingerprint", title="Fingerprint", required=False, default="", max_bytes=200,
                         help="SHA-256 of the certificate, as READ_CERTIFICATE shows it; needed to switch on."),
               risk=Risk.TOP, resend=Resend.NEVER,
               warning="The port then speaks TLS only, or no TLS at all. Without the right certificate the meter "
                       "cannot be reached any more.",
               answer_timeout_s=read_timeout_s(settings, 4) + pace.tls_switch_s),
        _write("SET_IDENTIFICATION_TYPE", "Set identification type",
               ParamSpec(name="identification_type", title="Identification type", type=ParamType.CHOICE,
                         choices=IDENTIFICATION_CHOICES),
               risk=Risk.TOP,
               warning="The manufacturer asks that this be set once in the life of the meter. " + UNSAFE_NOTE),
    )  # fmt: skip


UNSUPPORTED: Final[Mapping[str, str]] = {
    "TURN_ON": "This meter measures and signs; it has no relay. The charger switches the power.",
    "TURN_OFF": "This meter measures and signs; it has no relay. The charger switches the power.",
    "TOP_UP": "This meter holds no credit.",
    "READ_CREDIT": "This meter holds no credit.",
    "CLEAR_CREDIT": "This meter holds no credit.",
    "SET_POWER_LIMIT": "This meter cannot limit the power; the charger does.",
    "READ_POWER_LIMIT": "This meter cannot limit the power; the charger does.",
}  # D-10
