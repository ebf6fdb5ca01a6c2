"""CALIN's two HTTP services, v1 and v2: requests, judging of answers, and the rules around them (specs/calin-api.md).

Sans-I/O: requests are values, answers come in as ``HttpReply`` or ``NoReply``, time and the UUID of a sale come in as
arguments. The adapter owns connections, deadlines, the lock around a login, and every retry beyond one ``Exchange``.

Section numbers without a name are those of specs/calin-api.md; "command-flow" is specs/command-flow.md. Where a
decision of ours (D) departs from the head-end's reference, ``Poll`` holds both: ``outcome`` is ours and is what the
program acts on, ``reference`` is what the head-end would report and is what the shared vectors state.

Passwords, bearer tokens and STS tokens are kept out of every repr and every sentence (``Request.hide``).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Final, NoReturn, Self, TypeAlias
from urllib.parse import urlsplit

from app.errors import ConfigError, LocalProtocolError, ParameterError, RemoteProtocolError

CALL_TIMEOUT_S: Final = 120.0  # sections 2.1, 2.2: only to make a call end at all; an aborted one may be accepted
LOGIN_TIMEOUT_S: Final = 5.0  # section 2.2
LOGIN_ATTEMPTS: Final = 3
CALL_TRIES: Final = 3  # per round, section 2.2
TOKEN_MARGIN_S: Final = 1  # section 2.2: refreshed when less is left
MAX_BODY_BYTES: Final = 8 << 20  # ours; the hourly data of many meters is the largest answer
MAX_NUMBER_CHARS: Final = 60  # ours; digits and exponent beyond this are no number
MAX_REASON_CHARS: Final = 300  # ours
MAX_TASK_ID_CHARS: Final = 256  # ours
MAX_IN_FLIGHT: Final = 5  # commands per concentrator and API version, section 5.3
ACCEPT_TIMEOUT_S: Final = 30.0  # command-flow D-13, pull
FIRST_POLL_S: Final = 10.0  # section 5.1
POLL_DELAYS_S: Final = ((20.0, 10.0), (50.0, 15.0), (90.0, 20.0))  # section 5.1: age below -> delay
POLL_DELAY_LATE_S: Final = 30.0
MAX_AGE_S: Final = 48 * 3600.0  # section 5.2
STS_SPACING: Final = timedelta(seconds=60)  # command-flow 1.5
OLD_FIRMWARE: Final = "2F6B4584"  # section 8: v1 meters that cannot READ_POWER_LIMIT

V1_UNUSED_ITEMS: Final = ("The number of power down", "Special status identifier")  # section 1.2, known, never asked
V2_UNUSED_IDS: Final[Mapping[int, str]] = MappingProxyType(
    {37: "relay status", 42: "terminal cover last opened", 43: "special status", 47: "power-down count"}
)  # section 1.2


class Api(StrEnum):
    """Names of command-flow."""

    V1 = "CALIN_V1"
    V2 = "CALIN_V2"


class Command(StrEnum):
    """Interaction types (command-flow 1.1). The head-end calls TOP_UP ``TOP_UP_KWH``."""

    READ_CREDIT = "READ_CREDIT"
    READ_POWER_LIMIT = "READ_POWER_LIMIT"
    READ_VOLTAGE = "READ_VOLTAGE"
    READ_CURRENT = "READ_CURRENT"
    READ_POWER = "READ_POWER"
    READ_VERSION = "READ_VERSION"
    READ_DATE = "READ_DATE"
    READ_TIME = "READ_TIME"
    TURN_ON = "TURN_ON"
    TURN_OFF = "TURN_OFF"
    SET_DATE = "SET_DATE"
    SET_TIME = "SET_TIME"
    TOP_UP = "TOP_UP"
    SET_POWER_LIMIT = "SET_POWER_LIMIT"
    CLEAR_CREDIT = "CLEAR_CREDIT"
    CLEAR_TAMPER = "CLEAR_TAMPER"
    DELIVER_PREEXISTING_TOKEN = "DELIVER_PREEXISTING_TOKEN"
    READ_REPORT = "READ_REPORT"
    JOIN_NETWORK = "JOIN_NETWORK"


class Family(StrEnum):
    """Which set of paths a command uses (sections 3.1, 3.2)."""

    READ = "read"
    CONTROL = "control"
    WRITE = "write"
    TOKEN = "token"


class Purpose(StrEnum):
    """What a request is for; decides whether a failed one may be sent again at once."""

    LOGIN = "login"
    CREATE = "create"  # a task, or a provisioning change: may have been accepted although it failed
    POLL = "poll"
    MINT = "mint"  # a sale; never repeated (section 6)
    READ = "read"


class FailureClass(StrEnum):
    """Stable classes of sections 2 to 6."""

    HTML_PAGE = "html_page"
    HTTP_ERROR = "http_error"
    UNREACHABLE = "unreachable"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    LOGIN_FAILED = "login_failed"
    UNAUTHORIZED = "unauthorized"
    TOKEN_REJECTED_AT_SUBMIT = "token_rejected_at_submit"
    TASK_NOT_SCHEDULED = "task_not_scheduled"
    TOKEN_MISSING = "token_missing"
    PAYLOAD_MISSING = "payload_missing"
    INVALID_DATE = "invalid_date"
    NOT_SUPPORTED = "not_supported"
    STATUS_CHECK_FAILED = "status_check_failed"
    TOKEN_REJECTED = "token_rejected"
    NO_RESULT = "no_result"
    NOT_EXECUTED = "not_executed"
    UNREADABLE_VALUE = "unreadable_value"
    TOKEN_NOT_ISSUED = "token_not_issued"


class Decision(StrEnum):
    """Why our outcome of a poll departs from the head-end's."""

    KEEP_POLLING = "D-28"  # a failed status check says nothing about the command: ask again, never send again
    READABLE = "D-34"  # a read without a readable value is an execution failure
    CONTRADICTION = "calin-api 4.5"  # the relay went the other way
    SHAPE = "calin-api 4.3"  # an unexpected shape is an execution failure, not an endless poll
    STATUS_TEXT = "calin-api 4.3 row 7"  # status "1" is read as 1


# ---------------------------------------------------------------- failures


class RefusedParameter(ParameterError):
    """A command that must not be sent because of its parameters; permanent (section 3.3)."""

    def __init__(self, text: str, parameter: str, failure: FailureClass) -> None:
        super().__init__(text, parameter)
        self.failure = failure


class NotSupported(LocalProtocolError):
    """A command that this service, or this meter's firmware, does not have; permanent (section 3.3, D-10)."""

    failure: Final = FailureClass.NOT_SUPPORTED


_SENTENCES: Final[Mapping[FailureClass, str]] = MappingProxyType(
    {
        FailureClass.HTML_PAGE: "The vendor's service answered with a web page instead of data",
        FailureClass.HTTP_ERROR: "The vendor's service answered with an error",
        FailureClass.UNREACHABLE: "The vendor's service could not be reached or did not answer usably",
        FailureClass.CONNECTION_REFUSED: "The vendor's service refused the connection; nothing was sent",
        FailureClass.CONNECTION_RESET: "The connection to the vendor's service broke",
        FailureClass.LOGIN_FAILED: "The login at the vendor's service failed; check user, password and company",
        FailureClass.UNAUTHORIZED: "The vendor's service refused the call again after a new login",
        FailureClass.TOKEN_REJECTED_AT_SUBMIT: "The vendor refused the token, most likely because it was used before; "
        "read the credit before issuing another",
        FailureClass.TASK_NOT_SCHEDULED: "The vendor did not schedule the command",
        FailureClass.TOKEN_MISSING: "The command needs a token",
        FailureClass.PAYLOAD_MISSING: "The command needs a date",
        FailureClass.INVALID_DATE: "The date does not exist",
        FailureClass.NOT_SUPPORTED: "This service does not have the command",
        FailureClass.STATUS_CHECK_FAILED: "Asking for the state of the command failed",
        FailureClass.TOKEN_REJECTED: "The token or task was refused; a refused token was usually delivered before",
        FailureClass.NO_RESULT: "The vendor has no record of the command",
        FailureClass.NOT_EXECUTED: "The meter did not carry out the command",
        FailureClass.UNREADABLE_VALUE: "The answer holds no readable value",
        FailureClass.TOKEN_NOT_ISSUED: "The vendor did not issue a token",
    }
)


def _sentence(failure: FailureClass, *details: str | None) -> str:
    listed = "; ".join(item for item in details if item)
    return f"{_SENTENCES[failure]}{f' ({listed})' if listed else ''}."


# ---------------------------------------------------------------- settings (section 1.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """Values are trimmed, blank counts as missing; a trailing slash of the base URL is dropped.

    Raises:
        ConfigError: at construction, naming the key, never the value of a secret.
    """

    base_url: str
    company_name: str

    ENVIRONMENT: ClassVar[Mapping[str, str]]

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, str):
                raise ConfigError("the value is not a text", key=item.name, expected="text")
            value = value.strip()
            if not value:
                raise ConfigError("the setting is missing", key=item.name, expected="text that is not blank")
            if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
                raise ConfigError("the value is not a plain text", key=item.name, expected="no control characters")
            object.__setattr__(self, item.name, value)
        object.__setattr__(self, "base_url", _base_url(self.base_url))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Build from a form or a file. Raises ConfigError: a missing or unknown key, or as the class."""
        known = [item.name for item in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise ConfigError("there is no such setting", key=str(name)[:60], expected=", ".join(known))
        for name in known:
            if name not in settings:
                raise ConfigError("the setting is missing", key=name, expected="text that is not blank")
        return cls(**settings)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Build from the head-end's variables (section 1.1); other variables are not looked at. Raises ConfigError."""
        found = {}
        for variable, name in cls.ENVIRONMENT.items():
            if not (value := environment.get(variable, "").strip()):
                raise ConfigError("the variable is missing", key=variable, expected="text that is not blank")
            found[name] = value
        return cls(**found)


def _base_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _port = parts.port
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        inside = parts.username is not None or parts.password is not None
    except ValueError:
        sound, inside = False, False
    if not sound or inside or any(c.isspace() for c in text):
        raise ConfigError("the value is no address", key="base_url", expected="http(s)://host[:port][/path]")
    return text.rstrip("/")


def _environment(version: str, **names: str) -> Mapping[str, str]:
    return MappingProxyType({f"CALIN_API_{version}_{variable}": name for variable, name in names.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class V1Settings(_Settings):
    """Three accounts: admin (tasks), POS (top-up tokens), maintenance (other tokens and reports)."""

    ENVIRONMENT: ClassVar[Mapping[str, str]] = _environment(
        "V1",
        URL="base_url",
        COMPANY_NAME="company_name",
        ADMIN_USERNAME="admin_username",
        ADMIN_PASSWORD="admin_password",
        POS_USERNAME="pos_username",
        POS_PASSWORD="pos_password",
        MAINTENANCE_USERNAME="maintenance_username",
        MAINTENANCE_PASSWORD="maintenance_password",
    )
    admin_username: str
    admin_password: str = field(repr=False)
    pos_username: str
    pos_password: str = field(repr=False)
    maintenance_username: str
    maintenance_password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class V2Settings(_Settings):
    """One login account and the password that allows sales."""

    ENVIRONMENT: ClassVar[Mapping[str, str]] = _environment(
        "V2",
        URL="base_url",
        COMPANY_NAME="company_name",
        CUSTOMER_ID="customer_id",
        ADMIN_USERNAME="admin_username",
        ADMIN_PASSWORD="admin_password",
        POS_PASSWORD="pos_password",
    )
    customer_id: str
    admin_username: str
    admin_password: str = field(repr=False)
    pos_password: str = field(repr=False)


Settings: TypeAlias = V1Settings | V2Settings


def api_of(settings: Settings) -> Api:
    return Api.V1 if isinstance(settings, V1Settings) else Api.V2


# ---------------------------------------------------------------- requests and replies

TOKEN_IN_TEXT: Final = re.compile(r"(?<![0-9])[0-9]{4}(?:[ -]?[0-9]{4}){4}(?![0-9])")
HIDDEN: Final = "[redacted]"


@dataclass(frozen=True, slots=True)
class Request:
    """One POST with a JSON body. ``secrets`` are the texts of this request that nobody may be shown."""

    purpose: Purpose
    path: str
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    timeout_s: float = CALL_TIMEOUT_S
    bearer: str = field(default="", repr=False)

    @property
    def method(self) -> str:
        return "POST"

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers to send, ``Authorization`` included: not for showing."""
        found = {"Content-Type": "application/json", "Accept": "application/json"}
        return {**found, "Authorization": f"Bearer {self.bearer}"} if self.bearer else found

    def url(self, settings: Settings) -> str:
        """Base and path by plain concatenation (section 1.1)."""
        return settings.base_url + self.path

    def hide(self, text: str) -> str:
        """``text`` without this request's secrets and without anything that looks like an STS token."""
        for secret in sorted((*self.secrets, self.bearer), key=len, reverse=True):
            if len(secret) >= 3:
                text = text.replace(secret, HIDDEN)
        return TOKEN_IN_TEXT.sub(HIDDEN, text)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP answer, complete. ``body`` may hold a token and stays out of the repr."""

    status: int
    content_type: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoReply:
    """The wire failed; ``code`` is the OS error's name (ECONNREFUSED, ECONNRESET, ENOTFOUND ...), "" if not known."""

    code: str = ""


Reply: TypeAlias = HttpReply | NoReply


@dataclass(frozen=True, slots=True)
class Body:
    """A body that is JSON, whatever its codes say. Fractions are Decimals."""

    value: Any = field(repr=False)


ErrorCode: TypeAlias = int | Decimal | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A call, a task or a delivery failed. ``permanent``: never try again.

    ``may_have_arrived`` is False only where it is certain that the vendor did not accept the command or the sale.
    """

    failure: FailureClass
    vendor_reason: str | None = None
    error_code: ErrorCode = None
    permanent: bool = False
    cause: FailureClass | None = None  # of a failed status check
    may_have_arrived: bool = False
    detail: str = ""  # more for a person; never a secret

    @property
    def sentence(self) -> str:
        code = f"code {self.error_code}" if self.error_code not in (None, 0) else None
        return _sentence(self.failure, self.vendor_reason, code, self.cause, self.detail)


def _json_value(value: Any) -> Any:
    """Decimals become the JSON number of the same digits; raises ParameterError where there is none."""
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        if Decimal(repr(float(value))) != value:
            raise ParameterError("The number has more digits than can be sent.", "amount")
        return float(value)
    if isinstance(value, Mapping):
        return {name: _json_value(item) for name, item in value.items()}
    return [_json_value(item) for item in value] if isinstance(value, (list, tuple)) else value


def _post(
    purpose: Purpose,
    path: str,
    body: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    secrets: Iterable[str] = (),
    *,
    timeout_s: float = CALL_TIMEOUT_S,
) -> Request:
    try:
        data = json.dumps(_json_value(body), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError):
        raise ParameterError(f"A value for {path} holds something that cannot be sent as JSON.") from None
    return Request(purpose, path, data, tuple(item for item in secrets if item), timeout_s)


# ---------------------------------------------------------------- parameters

_HEAD_END_NAMES: Final[Mapping[str, Command]] = MappingProxyType({"TOP_UP_KWH": Command.TOP_UP})
PHASES: Final = ("A", "B", "C")
_SERIAL: Final = re.compile(r"[0-9]{11}")
_STS_TOKEN: Final = re.compile(r"[0-9]{20}")
_UUID4: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}")


def command_named(name: str) -> Command:
    """The command of command-flow's name or of the head-end's (TOP_UP_KWH). Raises NotSupported."""
    if isinstance(name, str):
        if (found := _HEAD_END_NAMES.get(name)) is not None:
            return found
        if name in Command.__members__:
            return Command[name]
    raise NotSupported(f"There is no command {str(name)[:60]!r}.")


def head_end_command(command: Command) -> str:
    """The head-end's name of a command."""
    return next((name for name, item in _HEAD_END_NAMES.items() if item is command), command.value)


def luhn_is_sound(digits: str) -> bool:
    """Whether the last of the decimal ``digits`` is the Luhn check digit of the others."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = int(character) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def check_serial(meter: str) -> str:
    """A meter serial: 11 digits with a sound Luhn digit (section 1). Raises ParameterError."""
    _check_digits(meter)
    if not luhn_is_sound(meter):
        raise ParameterError(f"The check digit of the meter serial {meter} is wrong; please compare it.", "meter")
    return meter


def _check_digits(meter: str) -> None:
    if not isinstance(meter, str) or _SERIAL.fullmatch(meter) is None:
        raise ParameterError("The meter serial must have exactly 11 digits.", "meter")


def check_token(token: str) -> str:
    """A token as a person types it, without white space: exactly 20 digits (command-flow 1.6).

    Raises:
        ParameterError: never quoting what was typed.
    """
    packed = "".join(token.split()) if isinstance(token, str) else ""
    if _STS_TOKEN.fullmatch(packed) is None:
        raise ParameterError("A token has exactly 20 digits.", "token")
    return packed


def check_phase(phase: str) -> str:
    """One of A, B and C, or "" for none. Raises ParameterError."""
    if phase not in ("", *PHASES):
        raise ParameterError(f"The phase must be A, B or C, not {str(phase)[:20]!r}.", "phase")
    return phase


def read_payload_date(payload: Any) -> date:
    """The date of SET_DATE: ``{year, month, day}``, whole numbers; a year below 100 means 20xx (section 3.3).

    Years outside 2000 to 2099 are refused too (ours): the meter keeps two digits.
    Raises:
        RefusedParameter: ``payload_missing`` or ``invalid_date``.
    """
    if payload is None:
        raise RefusedParameter("SET_DATE needs a date: year, month and day.", "payload", FailureClass.PAYLOAD_MISSING)
    parts: list[int] = []
    for name in ("year", "month", "day"):
        part = _whole(payload.get(name)) if isinstance(payload, Mapping) else None
        if part is None:
            raise RefusedParameter(f"The {name} of the date must be a whole number.", name, FailureClass.INVALID_DATE)
        parts.append(part)
    year, month, day = parts
    found = _calendar_date(2000 + year if 0 <= year < 100 else year, month, day)
    if found is None or not 2000 <= found.year < 2100:
        raise RefusedParameter(
            "The date must exist and lie in the years 2000 to 2099.", "payload", FailureClass.INVALID_DATE
        )
    return found


def _calendar_date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except (ValueError, OverflowError):
        return None


def v1_date_text(day: date) -> str:
    """``yymmddww``; the weekday is 00 for Sunday to 06 for Saturday (section 3.1)."""
    return f"{day.year % 100:02}{day.month:02}{day.day:02}{day.isoweekday() % 7:02}"


def v2_date_text(day: date) -> str:
    """``YYYY-MM-DD 00:00:00``: setting the date also sets the clock to midnight (section 3.2)."""
    return f"{day.year:04}-{day.month:02}-{day.day:02} 00:00:00"


# ---------------------------------------------------------------- what each service can do (section 1.2)

V1_ITEMS: Final[Mapping[Command, str]] = MappingProxyType(
    {
        Command.READ_CREDIT: "Current Credit Register",
        Command.READ_VOLTAGE: "Voltage",
        Command.READ_POWER: "Power",
        Command.READ_CURRENT: "Current",
        Command.READ_POWER_LIMIT: "Maximum power threshold",
        Command.READ_VERSION: "Version",
        Command.READ_DATE: "Date",
        Command.TURN_ON: "Switch On",
        Command.TURN_OFF: "Switch Off",
        Command.SET_DATE: "Date",
    }
)
V2_IDS: Final[Mapping[Command, int]] = MappingProxyType(
    {
        Command.READ_CREDIT: 39,
        Command.READ_VOLTAGE: 5,
        Command.READ_POWER: 11,
        Command.READ_CURRENT: 8,
        Command.READ_POWER_LIMIT: 46,
        Command.READ_VERSION: 45,
        Command.READ_DATE: 29,
        Command.TURN_ON: 20000,
        Command.TURN_OFF: 20001,
        Command.SET_DATE: 10000,
        Command.TOP_UP: 30000,
        Command.SET_POWER_LIMIT: 30000,
        Command.CLEAR_TAMPER: 30000,
        Command.CLEAR_CREDIT: 30000,
        Command.DELIVER_PREEXISTING_TOKEN: 30000,
    }
)
FAMILIES: Final[Mapping[Command, Family]] = MappingProxyType(
    {
        Command.READ_CREDIT: Family.READ,
        Command.READ_VOLTAGE: Family.READ,
        Command.READ_POWER: Family.READ,
        Command.READ_CURRENT: Family.READ,
        Command.READ_POWER_LIMIT: Family.READ,
        Command.READ_VERSION: Family.READ,
        Command.READ_DATE: Family.READ,
        Command.TURN_ON: Family.CONTROL,
        Command.TURN_OFF: Family.CONTROL,
        Command.SET_DATE: Family.WRITE,
        Command.TOP_UP: Family.TOKEN,
        Command.SET_POWER_LIMIT: Family.TOKEN,
        Command.CLEAR_TAMPER: Family.TOKEN,
        Command.CLEAR_CREDIT: Family.TOKEN,
        Command.DELIVER_PREEXISTING_TOKEN: Family.TOKEN,
    }
)  # exactly the commands that exist on both services
GENERATED_TOKENS: Final = (Command.TOP_UP, Command.SET_POWER_LIMIT, Command.CLEAR_TAMPER, Command.CLEAR_CREDIT)
PER_PHASE: Final = frozenset((Command.READ_VOLTAGE, Command.READ_CURRENT))


def unsupported_reason(api: Api, command: Command, *, firmware: str = "") -> str | None:
    """Why this service or this meter cannot do ``command``; None when it can (D-10, sections 1.2 and 8).

    Args:
        firmware: the meter's version as READ_VERSION gave it, "" when not known.
    """
    if command in (Command.READ_REPORT, Command.JOIN_NETWORK):
        return f"{command} is never sent; it is a report of LoRaWAN meters."
    if command not in FAMILIES:
        return f"{api} has no {command}; the vendor offers the date only."
    if api is Api.V1 and command is Command.READ_POWER_LIMIT and firmware.strip().upper() == OLD_FIRMWARE:
        return f"Meters with firmware {OLD_FIRMWARE} do not give their power limit."
    return None


def is_supported(api: Api, command: Command, *, firmware: str = "") -> bool:
    return unsupported_reason(api, command, firmware=firmware) is None


def phases_to_send(api: Api, command: Command, *, three_phase: bool) -> tuple[str, ...]:
    """The phases to ask for, one message each; ("",) is one message without a phase (command-flow 1.4, D-12)."""
    if three_phase and api is Api.V1 and command in PER_PHASE:
        return PHASES
    return ("",)


def _supported_family(api: Api, command: Command, firmware: str = "") -> Family:
    if (reason := unsupported_reason(api, command, firmware=firmware)) is not None:
        raise NotSupported(reason)
    return FAMILIES[command]


# ---------------------------------------------------------------- tasks (sections 3 and 4.1)

_V1_CREATE: Final[Mapping[Family, str]] = MappingProxyType(
    {
        Family.READ: "/COMM_RemoteReading",
        Family.CONTROL: "/COMM_RemoteControl",
        Family.WRITE: "/COMM_RemoteWrite",
        Family.TOKEN: "/COMM_RemoteToken",
    }
)  # polling: the same with "Task" appended
_V2_TASKS: Final[Mapping[Family, str]] = MappingProxyType(
    {Family.READ: "ReadingTask", Family.CONTROL: "ControlTask", Family.WRITE: "SettingTask", Family.TOKEN: "TokenTask"}
)
_V2_TASK_PATH: Final = "/API/RemoteMeterTask"


def create_task(
    settings: Settings,
    command: Command,
    meter: str,
    *,
    phase: str = "",
    token: str | None = None,
    payload: Any = None,
    firmware: str = "",
) -> Request:
    """The request that hands a command to the vendor (section 3).

    Args:
        meter: serial, 11 digits, sent unchanged.
        phase: used by READ_VOLTAGE and READ_CURRENT of v1 only.
        token: for the token family; sent as given. payload: for SET_DATE.
    Raises:
        NotSupported, RefusedParameter: with the class of section 3.3. ParameterError: serial or phase.
    """
    api = api_of(settings)
    family = _supported_family(api, command, firmware)
    _check_digits(meter)
    check_phase(phase)
    if family is Family.TOKEN and (not isinstance(token, str) or not token.strip()):
        raise RefusedParameter("The command needs a token.", "token", FailureClass.TOKEN_MISSING)
    given = token if family is Family.TOKEN and token is not None else ""
    day = read_payload_date(payload) if family is Family.WRITE else None
    match settings:
        case V1Settings():
            body = {**_v1_admin(settings), "MeterNo": meter}
            if family is Family.TOKEN:
                body["Token"] = given
            else:
                body["DataItem"] = V1_ITEMS[command] + (phase if command in PER_PHASE else "")
            if day is not None:
                body["Data"] = v1_date_text(day)
            return _post(Purpose.CREATE, _V1_CREATE[family], body, (settings.admin_password, given))
        case V2Settings():
            data = given or (v2_date_text(day) if day is not None else "")
            row = {
                "meterId": meter,
                "protocolId": V2_IDS[command],
                **({"data": data} if data else {}),
                "customerId": settings.customer_id,
                "company": settings.company_name,
            }
            return _post(Purpose.CREATE, f"{_V2_TASK_PATH}/Create{_V2_TASKS[family]}", [row], (given,))


def poll_task(settings: Settings, command: Command, task_id: str) -> Request:
    """The request for the state of a task; the path comes from the command (section 4.1).

    Raises:
        NotSupported: there are no such tasks. LocalProtocolError: the id cannot be asked for (v2: not a number).
    """
    family = _supported_family(api_of(settings), command)
    if not isinstance(task_id, str) or not task_id.strip():
        raise LocalProtocolError("A task without an id cannot be asked for.")
    match settings:
        case V1Settings():
            body = {**_v1_admin(settings), "TaskNo": task_id}
            return _post(Purpose.POLL, f"{_V1_CREATE[family]}Task", body, (settings.admin_password,))
        case V2Settings():
            if re.fullmatch(r"[0-9]{1,30}", task_id.strip()) is None:
                raise LocalProtocolError(f"The task id {task_id[:40]!r} is not a number, so v2 cannot be asked for it.")
            row = {"id": int(task_id), "lang": "en", "company": settings.company_name}
            return _post(Purpose.POLL, f"{_V2_TASK_PATH}/Get{_V2_TASKS[family]}", row)


def _v1_admin(settings: V1Settings) -> dict[str, Any]:
    return _v1_account(settings, settings.admin_username, settings.admin_password)


def _v1_account(settings: V1Settings, user: str, password: str) -> dict[str, Any]:
    return {"CompanyName": settings.company_name, "UserName": user, "Password": password}


# ---------------------------------------------------------------- tokens (section 6)


def check_kwh(kwh: Any) -> Decimal:
    """Energy of a sale in kWh: finite and above zero (command-flow 1.6). Raises ParameterError."""
    number = _number(kwh)
    if number is None or number <= 0:
        raise ParameterError("The energy to sell must be a number of kWh above 0.", "kwh")
    return number


def check_power_limit(limit: Any) -> int:
    """A power limit in whole watts, 0 = no limit (command-flow 1.6). Raises ParameterError."""
    number = _whole(limit)
    if number is None or number < 0:
        raise ParameterError("The power limit must be a whole number of watts, 0 or more.", "power_limit")
    return number


def issue_token(
    settings: Settings,
    command: Command,
    meter: str,
    *,
    kwh: Any = None,
    power_limit: Any = None,
    serial_number: str = "",
) -> Request:
    """The request that makes the vendor issue a token. Not idempotent: a top-up is a sale (section 6).

    Args:
        kwh: for TOP_UP. power_limit: watts, for SET_POWER_LIMIT.
        serial_number: for TOP_UP on v2, a UUID v4, one per action of the user and the same in its retries.
    Raises:
        NotSupported: not one of the four generated types. ParameterError: a value is missing or out of its limits.
    """
    if command not in GENERATED_TOKENS:
        raise NotSupported(f"The vendor issues no token for {command}.")
    _check_digits(meter)
    energy = check_kwh(kwh) if command is Command.TOP_UP else None
    watts = check_power_limit(power_limit) if command is Command.SET_POWER_LIMIT else None
    body: dict[str, Any]
    match settings:
        case V1Settings():
            sale = command is Command.TOP_UP
            password = settings.pos_password if sale else settings.maintenance_password
            body = {
                "company_name": settings.company_name,
                "user_name": settings.pos_username if sale else settings.maintenance_username,
                "password": password,
            }
            if sale:
                body |= {"password_vend": password, "is_vend_by_unit": True}
            body["meter_number"] = meter
            if energy is not None:
                body["amount"] = energy
            if watts is not None:
                body["max_power"] = watts
            return _post(Purpose.MINT, _V1_MINT[command], body, (password,))
        case V2Settings():
            body = {"meterId": meter}
            if energy is not None:
                body["amount"] = energy
            if watts is not None:
                body["maximumPower"] = watts
            body["company"] = settings.company_name
            if energy is not None:
                if _UUID4.fullmatch(serial_number) is None:
                    raise ParameterError("A sale needs a serial number in the form of a UUID v4.", "serial_number")
                body |= {
                    "authorizationPassword": settings.pos_password,
                    "isPreview": False,
                    "isVendByTotalPaid": False,
                    "serialNumber": serial_number,
                }
            return _post(Purpose.MINT, f"/API/Token/{_V2_MINT[command]}/Generate", body, (settings.pos_password,))


_V1_MINT: Final[Mapping[Command, str]] = MappingProxyType(
    {
        Command.TOP_UP: "/POS_Purchase",
        Command.SET_POWER_LIMIT: "/Maintenance_SetMaxPower",
        Command.CLEAR_TAMPER: "/Maintenance_ClearTamper",
        Command.CLEAR_CREDIT: "/Maintenance_ClearCredit",
    }
)
_V2_MINT: Final[Mapping[Command, str]] = MappingProxyType(
    {
        Command.TOP_UP: "CreditToken",
        Command.SET_POWER_LIMIT: "SetMaximumPowerLimitToken",
        Command.CLEAR_TAMPER: "ClearTamperToken",
        Command.CLEAR_CREDIT: "ClearCreditToken",
    }
)


def sts_service_token(
    command: Command, decoder_key: str, random_number: int, issue_date: str, *, kwh: Any = None, power_limit: Any = None
) -> Request:
    """The request to the token generator service of LoRaWAN meters (section 6, last paragraph).

    Args:
        decoder_key: 16 hex digits, a secret. random_number: 0 to 15. issue_date: ISO date and time with a ``T``.
    Raises:
        NotSupported, ParameterError: never quoting the key.
    """
    if command not in GENERATED_TOKENS:
        raise NotSupported(f"No token is generated for {command}.")
    key = decoder_key.strip() if isinstance(decoder_key, str) else ""
    if re.fullmatch(r"[0-9A-Fa-f]{16}", key) is None:
        raise ParameterError("The decoder key must have exactly 16 hexadecimal digits.", "decoder_key")
    number = _whole(random_number)
    if number is None or not 0 <= number <= 15:
        raise ParameterError("The random number of a token must be 0 to 15.", "random_number")
    if not isinstance(issue_date, str) or "T" not in issue_date or not _is_iso_time(issue_date):
        raise ParameterError("The issue date of a token must be an ISO date and time with a T.", "issue_date")
    body: dict[str, Any] = {
        "decoderKey": key,
        "randomNumber": number,
        "issueDate": issue_date,
        "type": head_end_command(command),
    }
    if command is Command.TOP_UP:
        body["kwh"] = check_kwh(kwh)
    if command is Command.SET_POWER_LIMIT:
        body["powerLimit"] = check_power_limit(power_limit)
    return _post(Purpose.MINT, "/token", body, (key,))


def _is_iso_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def next_issue_time(last: datetime | None, now: datetime) -> datetime:
    """Issue time of the next token of one meter (command-flow 1.5, rule 2).

    ``now`` when there was none or the last lies at least 60 s back; otherwise, also for one in the future, the last
    plus 60 s. The caller reads ``last`` and stores the result in one transaction (D-14), before asking for the token.
    Raises:
        LocalProtocolError: a time without a zone, or at the end of the calendar.
    """
    if now.tzinfo is None or (last is not None and last.tzinfo is None):
        raise LocalProtocolError("The issue time of a token needs a time zone.")
    if last is None or now - last >= STS_SPACING:
        return now
    try:
        return last + STS_SPACING
    except OverflowError:
        raise LocalProtocolError("The stored issue time of the last token is not usable.") from None


# ---------------------------------------------------------------- further calls (section 7)


def v1_hourly_data(settings: V1Settings, queries: Sequence[tuple[str, date]]) -> Request:
    """Hourly consumption of many meters, one ``(meter, grid-local day)`` each.

    Raises:
        ParameterError: no query, or a serial that is none.
    """
    if not queries:
        raise ParameterError("Ask for at least one meter and day.", "queries")
    for meter, _day in queries:
        _check_digits(meter)
    listed = [{"MeterNo": meter, "Year": day.year, "Month": day.month, "Day": day.day} for meter, day in queries]
    return _v1_maintenance(settings, "/COMM_HourlyDataNew", {"QueryList": listed})


def v1_online_status(settings: V1Settings) -> Request:
    """Which concentrators are online."""
    return _v1_maintenance(settings, "/COMM_OnlineStatus", {})


def _v1_maintenance(settings: V1Settings, path: str, extra: Mapping[str, Any]) -> Request:
    account = _v1_account(settings, settings.maintenance_username, settings.maintenance_password)
    return _post(Purpose.READ, path, {**account, **extra}, (settings.maintenance_password,))


def v2_online_status(settings: V2Settings) -> Request:
    """Which concentrators are online, the first hundred."""
    body = {"pageNumber": 0, "pageSize": 100, "company": settings.company_name}
    return _post(Purpose.READ, "/API/ConcentratorOnlineStatus/Read", body)


def v2_daily_report(settings: V2Settings, concentrator: str, meter: str, first: str, last: str) -> Request:
    """Hourly consumption by day; ``first`` and ``last`` are ISO dates or times. Raises ParameterError."""
    _check_digits(meter)
    for name, text in (("first", first), ("last", last)):
        if not isinstance(text, str) or not _is_iso_time(text):
            raise ParameterError(f"The {name} day of the report must be an ISO date.", name)
    body = {
        "concentratorId": _check_id(concentrator, "concentrator"),
        "meterId": meter,
        "updateDateRange": [first, last],
        "lang": "en",
        "company": settings.company_name,
    }
    return _post(Purpose.READ, "/API/DailyReport/Read", body)


def v2_dlms_tree(settings: V2Settings) -> Request:
    """Every protocol id the vendor knows (section 1.2)."""
    return _post(
        Purpose.READ, "/api/dlms/readDlmsTree", {"Company": settings.company_name, "lang": "en", "version": "1.1"}
    )


def v2_create_account(settings: V2Settings, meter: str, customer: str, region: str) -> Request:
    """First step of adding a meter."""
    _check_digits(meter)
    row = {
        "meterId": meter,
        "company": settings.company_name,
        "customerId": _check_id(customer, "customer"),
        "region": region,
        "remark": None,
        "tariffId": "1",
    }
    return _post(Purpose.CREATE, "/api/account/create", [row])


def v2_delete_account(settings: V2Settings, meter: str, customer: str) -> Request:
    """Last step of removing a meter."""
    _check_digits(meter)
    row = {"meterId": meter, "customerId": _check_id(customer, "customer"), "Company": settings.company_name}
    return _post(Purpose.CREATE, "/api/account/delete", [row])


def v2_create_file(settings: V2Settings, concentrator: str, meter: str, password: str) -> Request:
    """Second step of adding a meter: its entry in the concentrator's file. ``password`` is the meter's, a secret."""
    _check_digits(meter)
    row = {
        "concentratorId": _check_id(concentrator, "concentrator"),
        "meterId": meter,
        "communicationPort": 31,
        "safetyLevel": 1,
        "encryptionMode": 0,
        "protocolType": 3,
        "concentratorMeterType": 1,
        "clientAddress": 71,
        "password": password,
        "relayAddress": "000000000000",
        "communicationParameter": "9600-n-8-1",
        "pn": 0,
        "company": settings.company_name,
    }
    return _post(Purpose.CREATE, "/api/concentratorFile/create", [row], (password,))


def v2_read_file(settings: V2Settings, concentrator: str, meter: str) -> Request:
    """First step of removing a meter: its point number."""
    _check_digits(meter)
    body = {
        "concentratorId": _check_id(concentrator, "concentrator"),
        "meterId": meter,
        "company": settings.company_name,
    }
    return _post(Purpose.READ, "/API/ConcentratorFile/Read", body)


def v2_delete_file(settings: V2Settings, concentrator: str, point_number: int) -> Request:
    """Second step of removing a meter."""
    row = {
        "pn": point_number,
        "concentratorId": _check_id(concentrator, "concentrator"),
        "company": settings.company_name,
    }
    return _post(Purpose.CREATE, "/api/concentratorFile/delete", [row])


def v2_update_file(settings: V2Settings, concentrator: str) -> Request:
    """After every change of a concentrator's file."""
    body = {"Company": settings.company_name, "ConcentratorId": _check_id(concentrator, "concentrator")}
    return _post(Purpose.CREATE, "/api/concentrator/updateStatusFile", body)


def v2_create_concentrator(
    settings: V2Settings, concentrator: str, name: str, latitude: Decimal, longitude: Decimal, remark: str = ""
) -> Request:
    row = {
        "concentratorId": _check_id(concentrator, "concentrator"),
        "name": name,
        "lat": latitude,
        "lng": longitude,
        "remark": remark,
        "company": settings.company_name,
    }
    return _post(Purpose.CREATE, "/API/Concentrator/Create", [row])


def v2_delete_concentrator(settings: V2Settings, concentrator: str) -> Request:
    row = {"concentratorId": _check_id(concentrator, "concentrator"), "Company": settings.company_name}
    return _post(Purpose.CREATE, "/API/Concentrator/Delete", [row])


def v2_adding(
    settings: V2Settings, concentrator: str, meter: str, customer: str, region: str, password: str
) -> tuple[Request, ...]:
    """The three calls that add a meter, in order: account, file entry, update. Each is judged by ``judge_row``."""
    return (
        v2_create_account(settings, meter, customer, region),
        v2_create_file(settings, concentrator, meter, password),
        v2_update_file(settings, concentrator),
    )


def v2_removing(
    settings: V2Settings, concentrator: str, meter: str, customer: str, point_number: int
) -> tuple[Request, ...]:
    """What follows ``v2_read_file`` when a meter is removed, in order: file entry, update, account."""
    return (
        v2_delete_file(settings, concentrator, point_number),
        v2_update_file(settings, concentrator),
        v2_delete_account(settings, meter, customer),
    )


def _check_id(text: str, name: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ParameterError(f"The id of the {name} is missing.", name)
    return text


# ---------------------------------------------------------------- reading JSON and numbers


class _NotJson(Exception):
    pass


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


def _json_integer(text: str) -> int | str:
    return text if len(text) > MAX_NUMBER_CHARS else int(text)


def _json_decimal(text: str) -> Decimal | str:
    """A monstrous number stays text, so it is no number where one is asked for."""
    number = parse_number(text)
    return text if number is None else number


# One JSON escape; the group holds half of a surrogate pair that stands alone. Such a text could not be stored.
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def _read_json(body: bytes) -> Any:
    """Strict JSON of any type: UTF-8 (a byte order mark is allowed), no NaN, bounded. Raises _NotJson."""
    if len(body) > MAX_BODY_BYTES:
        raise _NotJson
    try:
        text = body.decode("utf-8-sig")
        text = _ESCAPE.sub(lambda mark: "\\ufffd" if mark[1] else mark[0], text)
        return json.loads(text, parse_float=_json_decimal, parse_int=_json_integer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _NotJson from None


_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse_number(text: str) -> Decimal | None:
    """A complete decimal number with sign, digits, point and exponent, trimmed; None for anything else (section 4.6).

    Numbers beyond 60 digits or an exponent beyond 60 either way are none.
    """
    text = text.strip() if len(text) <= 4 * MAX_NUMBER_CHARS else ""
    if len(text) > MAX_NUMBER_CHARS or _NUMBER.fullmatch(text) is None:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if _is_bounded(number) else None


def _is_bounded(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_NUMBER_CHARS and number.adjusted() <= MAX_NUMBER_CHARS


def _number(raw: Any) -> Decimal | None:
    """A finite number of a number or a text (section 4.6); None for anything else, true and false included."""
    match raw:
        case bool():
            return None
        case int():
            return Decimal(raw) if abs(raw) < 10**MAX_NUMBER_CHARS else None
        case float():
            return _number(Decimal(repr(raw))) if math.isfinite(raw) else None
        case Decimal():
            return raw if raw.is_finite() and _is_bounded(raw) else None
        case str():
            return parse_number(raw)
        case _:
            return None


def _integral(number: Decimal | None) -> int | None:
    return int(number) if number is not None and number == number.to_integral_value() else None


def _whole(raw: Any) -> int | None:
    """A whole number of a number; texts are none."""
    return None if isinstance(raw, str) else _integral(_number(raw))


def _member(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else None


def _object(raw: Any, name: str) -> dict[str, Any] | None:
    found = _member(raw, name)
    return found if isinstance(found, dict) else None


def _first(raw: Any) -> Any:
    return raw[0] if isinstance(raw, list) and raw else None


def _reason(request: Request, raw: Any, name: str) -> str | None:
    """The vendor's reason without secrets, bounded; None when there is none."""
    found = _member(raw, name)
    if not isinstance(found, str) or not found.strip():
        return None
    return request.hide(found)[:MAX_REASON_CHARS]


# ---------------------------------------------------------------- classifying an HTTP answer (section 2)


def judge_v1(request: Request, reply: Reply) -> Body | Failed:
    """Classify one answer of v1, the first row of section 2.1 that fits. There are no retries inside the client."""
    if isinstance(reply, NoReply):
        return _no_reply(reply)
    if "text/html" in reply.content_type.lower():
        return Failed(failure=FailureClass.HTML_PAGE, error_code=reply.status, may_have_arrived=True)
    try:
        value = _read_json(reply.body)
        sound = True
    except _NotJson:
        value, sound = None, False
    if not 200 <= reply.status < 300:
        reason = _reason(request, value, "Message")
        return Failed(
            failure=FailureClass.HTTP_ERROR, vendor_reason=reason, error_code=reply.status, may_have_arrived=True
        )
    if not sound:
        return Failed(failure=FailureClass.UNREACHABLE, detail="the body is not JSON", may_have_arrived=True)
    return Body(value)


def _no_reply(reply: NoReply) -> Failed:
    code = reply.code[:40] or None
    match reply.code:
        case "ECONNREFUSED":
            return Failed(failure=FailureClass.CONNECTION_REFUSED, error_code=code)
        case "ECONNRESET":
            return Failed(failure=FailureClass.CONNECTION_RESET, error_code=code, may_have_arrived=True)
        case _:
            return Failed(failure=FailureClass.UNREACHABLE, error_code=code, may_have_arrived=True)


# ---------------------------------------------------------------- login of v2


@dataclass(frozen=True, slots=True)
class Bearer:
    """A bearer token and the second (Unix time) at which it ends."""

    token: str = field(repr=False)
    expires: Decimal

    def is_good(self, now: datetime) -> bool:
        """At least 1 s is left (section 2.2). Raises LocalProtocolError when ``now`` has no zone."""
        if now.tzinfo is None:
            raise LocalProtocolError("The time of a login needs a time zone.")
        return self.expires - Decimal(repr(now.timestamp())) >= TOKEN_MARGIN_S


def login(settings: V2Settings) -> Request:
    """The login call of section 2.2."""
    body = {"userId": settings.admin_username, "password": settings.admin_password, "company": settings.company_name}
    return _post(Purpose.LOGIN, "/API/User/Login", body, (settings.admin_password,), timeout_s=LOGIN_TIMEOUT_S)


def read_login(request: Request, reply: HttpReply) -> Bearer:
    """Read the answer of a login; its HTTP status is not looked at (section 2.2).

    Raises:
        RemoteProtocolError: no token, or one without a readable numeric ``exp``. Never quotes the token.
    """
    try:
        value = _read_json(reply.body)
    except _NotJson:
        raise RemoteProtocolError("The login's answer is not JSON.") from None
    token = _member(_object(value, "result"), "token")
    if not isinstance(token, str) or not token:
        reason = _reason(request, value, "reason")
        raise RemoteProtocolError(f"The login's answer holds no token{f' ({reason})' if reason else ''}.")
    expires = token_expiry(token)
    if expires is None or re.fullmatch(r"[!-~]+", token) is None:
        raise RemoteProtocolError("The login's token does not say when it ends.")
    return Bearer(token, expires)


def token_expiry(token: str) -> Decimal | None:
    """``exp`` of a JWT, Unix seconds, without checking the signature; None when it cannot be read."""
    parts = token.split(".")
    if len(parts) != 3 or re.fullmatch(r"[A-Za-z0-9_-]+", parts[1]) is None:
        return None
    try:
        claims = _read_json(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, _NotJson):
        return None
    found = _member(claims, "exp")
    return None if isinstance(found, str) else _number(found)


class LoginCache:
    """The bearer token shared by all calls of one account. Time is an argument; nothing here reads a clock."""

    def __init__(self) -> None:
        self._bearer: Bearer | None = None

    def __repr__(self) -> str:
        return f"LoginCache({'logged in' if self._bearer else 'logged out'})"

    def get(self, now: datetime) -> Bearer | None:
        """The token while at least 1 s is left; None means: log in."""
        return self._bearer if self._bearer is not None and self._bearer.is_good(now) else None

    def put(self, bearer: Bearer) -> None:
        self._bearer = bearer

    def drop(self, bearer: Bearer) -> None:
        """Forget ``bearer`` after a 401, but never a newer one that another call has fetched meanwhile."""
        if self._bearer == bearer:
            self._bearer = None


class Repeat(StrEnum):
    """Which failed tries of a call are repeated at once (section 2.2)."""

    NEVER = "never"
    REFUSED = "refused"  # only when nothing was sent
    ALWAYS = "always"  # as the reference does


def repeat_for(purpose: Purpose) -> Repeat:
    """Our rule (section 2.2 D, section 6): creating only when nothing was sent, a sale never, asking always."""
    match purpose:
        case Purpose.CREATE:
            return Repeat.REFUSED
        case Purpose.MINT:
            return Repeat.NEVER
        case Purpose.LOGIN | Purpose.POLL | Purpose.READ:
            return Repeat.ALWAYS


class Exchange:
    """One authorised call of v2 with its logins and tries (section 2.2), as a state machine.

    ``while (request := exchange.next(now)) is not None: exchange.feed(reply, now)``; then ``result``. ``next`` may be
    called again before ``feed``: an adapter does so after waiting for another call's login, which is then shared.
    """

    def __init__(
        self, settings: V2Settings, request: Request, cache: LoginCache, *, repeat: Repeat | None = None
    ) -> None:
        self._login = login(settings)
        self._request = request
        self._cache = cache
        self._repeat = repeat_for(request.purpose) if repeat is None else repeat
        self._bearer: Bearer | None = None
        self._round = 1
        self._tries = 0
        self._logins = 0
        self._arrived = False
        self._result: Body | Failed | None = None

    def next(self, now: datetime) -> Request | None:
        """What to send now: the login, or the call itself; None when the call has ended."""
        if self._result is not None:
            return None
        if self._bearer is None:
            self._bearer = self._cache.get(now)
        if self._bearer is None:
            return self._login
        return dataclasses.replace(self._request, bearer=self._bearer.token)

    @property
    def result(self) -> Body | Failed:
        """Raises LocalProtocolError while the call has not ended."""
        if self._result is None:
            raise LocalProtocolError(f"{self._request.name} has not ended yet.")
        return self._result

    def feed(self, reply: Reply, now: datetime) -> None:
        """Take the answer to what ``next`` gave. Raises LocalProtocolError when the call has ended."""
        sent = self.next(now)
        if sent is None:
            raise LocalProtocolError(f"{self._request.name} has ended; no answer is expected.")
        if sent.purpose is Purpose.LOGIN:
            self._feed_login(reply)
        else:
            self._feed_call(sent, reply)

    def _feed_login(self, reply: Reply) -> None:
        if isinstance(reply, NoReply):
            self._logins += 1
            if self._logins >= LOGIN_ATTEMPTS:
                self._fail(FailureClass.LOGIN_FAILED, reply.code[:40])
            return
        try:
            self._bearer = read_login(self._login, reply)
        except RemoteProtocolError as error:
            self._fail(FailureClass.LOGIN_FAILED, str(error).rstrip("."))
        else:
            self._cache.put(self._bearer)

    def _feed_call(self, sent: Request, reply: Reply) -> None:
        refused = isinstance(reply, NoReply) and reply.code == "ECONNREFUSED"
        if isinstance(reply, HttpReply):
            if reply.status == 401:
                self._unauthorized()
                return
            if 200 <= reply.status < 300:
                try:
                    self._result = Body(_read_json(reply.body))
                except _NotJson:
                    detail = "the body is not JSON"
                else:
                    return
            else:
                detail = f"HTTP {reply.status}"
        else:
            detail = reply.code[:40]
        self._arrived = self._arrived or not refused
        self._tries += 1
        again = self._repeat is Repeat.ALWAYS or (self._repeat is Repeat.REFUSED and refused)
        if not again or self._tries >= CALL_TRIES:
            self._fail(FailureClass.UNREACHABLE, sent.hide(detail))

    def _unauthorized(self) -> None:
        if self._round > 1:
            self._fail(FailureClass.UNAUTHORIZED)
            return
        if self._bearer is not None:
            self._cache.drop(self._bearer)
        self._bearer = None
        self._round, self._tries, self._logins = 2, 0, 0

    def _fail(self, failure: FailureClass, detail: str = "") -> None:
        self._result = Failed(failure=failure, detail=detail, may_have_arrived=self._arrived)


# ---------------------------------------------------------------- a task is accepted, or not (section 3.3)


@dataclass(frozen=True, slots=True)
class Task:
    """The vendor took the command; its state is asked for under ``task_id``."""

    task_id: str


def judge_created(api: Api, command: Command, request: Request, answer: Body | Failed) -> Task | Failed:
    """Classify the answer to ``create_task``: the presence of a task id decides, never a code (section 3.3).

    Raises:
        RemoteProtocolError: the vendor took the command under an id that cannot be one (too long).
    """
    if isinstance(answer, Failed):
        return answer
    value = answer.value
    holder = _object(value, "Result") if api is Api.V1 else _first(_member(value, "result"))
    task_id = _task_id(_member(holder, "TaskNo" if api is Api.V1 else "id"))
    if task_id:
        return Task(task_id)
    if api is Api.V2:
        return Failed(failure=FailureClass.TASK_NOT_SCHEDULED, vendor_reason=_reason(request, value, "reason"))
    code, reason = _member(value, "ResultCode"), _reason(request, value, "Reason")
    refused = code == "99"
    if refused and FAMILIES.get(command) is Family.TOKEN:
        failure = FailureClass.TOKEN_REJECTED_AT_SUBMIT
    else:
        failure = FailureClass.TASK_NOT_SCHEDULED
    number = _number(code)
    whole = _integral(number)
    return Failed(
        failure=failure,
        vendor_reason=reason,
        error_code=number if whole is None else whole,
        permanent=refused,
    )


def _task_id(raw: Any) -> str:
    """Numbers and texts are ids, kept as text; "" for none. 0 is none."""
    match raw:
        case bool():
            return ""
        case str():
            if len(raw) > MAX_TASK_ID_CHARS:
                raise RemoteProtocolError(f"The vendor took the command under an id of {len(raw)} characters.")
            return raw if raw.strip() else ""
        case int() | Decimal():
            whole = _integral(_number(raw))
            return "" if not raw else format(raw, "f") if whole is None else str(whole)
        case _:
            return ""


# ---------------------------------------------------------------- the state of a task (sections 4.2 to 4.6)


@dataclass(frozen=True, slots=True)
class Pending:
    """Ask again later. ``fault`` is why this look at the task failed; the task itself stands (D-28)."""

    fault: Failed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The meter was reached. ``executed`` tells whether it did what was asked.

    ``raw``: the decoded fields under the head-end's names in snake_case, None where its result has no data.
    ``result``: our form: ``accepted`` and ``raw`` for a change (D-01); for a read the value with its unit:
    ``kwh_credit_available`` (kWh), ``is_on``; ``voltage`` (V) or ``current`` (A) with ``phase``, ``phases_missing``;
    ``power_w`` (W, None when the unit is unknown), ``power``, ``unit``, ``unit_source``; ``power_limit`` (W);
    ``version``; ``year``, ``month``, ``day``. Empty when not executed.
    """

    executed: bool
    raw: Mapping[str, Any] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    failure: FailureClass | None = None
    vendor_reason: str | None = None

    @property
    def sentence(self) -> str:
        """Why it was not executed; "" when it was."""
        return "" if self.failure is None else _sentence(self.failure, self.vendor_reason)


TaskState: TypeAlias = Pending | Failed | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One look at a task: ``outcome`` is ours, ``reference`` the head-end's, ``decision`` why they differ."""

    outcome: TaskState
    reference: TaskState
    decision: Decision | None = None


def judge_poll(
    api: Api,
    command: Command,
    request: Request,
    answer: Body | Failed,
    *,
    phase: str = "",
    three_phase: bool = False,
) -> Poll:
    """Classify the answer to ``poll_task`` (sections 4.2 to 4.5, command-flow 5.3).

    Args:
        phase: as asked for. three_phase: the meter has three phases; on v2 names the phases that stay unread (D-12).
    """
    if isinstance(answer, Failed):
        reference = Failed(
            failure=FailureClass.STATUS_CHECK_FAILED,
            cause=answer.failure,
            vendor_reason=answer.vendor_reason,
            error_code=answer.error_code,
            detail=answer.detail,
            may_have_arrived=True,
        )
        return Poll(outcome=Pending(reference), reference=reference, decision=Decision.KEEP_POLLING)
    asked = _Asked(api, command, phase, three_phase)
    judge = _judge_v1_task if api is Api.V1 else _judge_v2_task
    return judge(asked, request, answer.value)


@dataclass(frozen=True, slots=True)
class _Asked:
    api: Api
    command: Command
    phase: str
    three_phase: bool


class _Shape(Exception):
    """The answer has a shape on which the head-end's reference stumbles, and so polls again."""


class _Unreadable(Exception):
    """A value that the reference reports as unreadable too."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    raw: Mapping[str, Any] | None
    unit: str = ""  # as the vendor wrote it
    unit_source: str = ""  # "value" or "data_prefix"
    relay: str = ""  # relay text of a credit reading


def _same(state: TaskState) -> Poll:
    return Poll(outcome=state, reference=state)


def _no_record(request: Request, value: Any, name: str) -> Poll:
    reference = Failed(
        failure=FailureClass.NO_RESULT, vendor_reason=_reason(request, value, name), may_have_arrived=True
    )
    return Poll(outcome=Pending(reference), reference=reference, decision=Decision.KEEP_POLLING)


def _judge_v1_task(asked: _Asked, request: Request, value: Any) -> Poll:
    found = _object(value, "Result")
    if found is None:
        if _member(value, "ResultCode") == "99":
            return _same(
                Failed(
                    failure=FailureClass.TOKEN_REJECTED,
                    vendor_reason=_reason(request, value, "Reason"),
                    error_code=99,
                    permanent=True,
                )
            )
        return _no_record(request, value, "Reason")
    match found.get("Status"):
        case "True":
            return _decoded(asked, lambda: _decode_v1(asked, found))
        case "False":
            return _same(_not_executed(request, value, "Reason", "OK"))
        case _:
            return _same(Pending())


def _not_executed(request: Request, value: Any, name: str, marker: str) -> Done:
    reason = None if _member(value, name) == marker else _reason(request, value, name)
    return Done(executed=False, failure=FailureClass.NOT_EXECUTED, vendor_reason=reason)


def _judge_v2_task(asked: _Asked, request: Request, value: Any) -> Poll:
    row = _first(_member(_object(value, "result"), "data"))
    if not isinstance(row, dict):
        return _no_record(request, value, "reason")
    given = row.get("status")
    poll = _judge_v2_row(asked, request, value, row, _integral(_number(given)))
    if isinstance(given, str) and not isinstance(poll.outcome, Pending):
        return Poll(outcome=poll.outcome, reference=Pending(), decision=Decision.STATUS_TEXT)
    return poll


def _judge_v2_row(asked: _Asked, request: Request, value: Any, row: dict[str, Any], status: int | None) -> Poll:
    if status is None or status <= 0:
        return _same(Pending())
    if status == 1:
        return _decoded(asked, lambda: _decode_v2(asked, row))
    if status == 3:
        return _same(Done(executed=False, failure=FailureClass.TOKEN_REJECTED))
    return _same(_not_executed(request, value, "reason", "success"))


def _decoded(asked: _Asked, decode: Any) -> Poll:
    unreadable = Done(executed=False, failure=FailureClass.UNREADABLE_VALUE)
    try:
        found: _Decoded = decode()
    except _Shape:
        return Poll(outcome=unreadable, reference=Pending(), decision=Decision.SHAPE)
    except _Unreadable:
        return _same(unreadable)
    own = _normalised(asked, found)
    reference = Done(executed=True, raw=found.raw, result=own if isinstance(own, Mapping) else {})
    match own:
        case Decision.CONTRADICTION:
            outcome = Done(executed=False, raw=found.raw, failure=FailureClass.NOT_EXECUTED)
            return Poll(outcome=outcome, reference=reference, decision=own)
        case Decision():
            outcome = dataclasses.replace(unreadable, raw=found.raw)
            return Poll(outcome=outcome, reference=reference, decision=own)
        case _:
            return _same(reference)


# decoding as the reference does: section 4.4, by item


def _text_of(row: Mapping[str, Any], name: str) -> str:
    found = row.get(name)
    if not isinstance(found, str):
        raise _Shape
    return found


_V1_PHASED: Final = re.compile(r"(Voltage|Current)([ABC]?)")
_V1_VALUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Voltage": "voltage",
        "Current": "current",
        "Power": "power",
        "Maximum power threshold": "power_limit",
    }
)
_FLAGS: Final[Mapping[str, str]] = MappingProxyType(
    {"Switch On": "turn_on_accepted", "Switch Off": "turn_off_accepted", "Token": "token_accepted"}
)


def _decode_v1(asked: _Asked, found: Mapping[str, Any]) -> _Decoded:
    item = found.get("DataItem")
    if not isinstance(item, str):
        return _Decoded(None)
    if item in _FLAGS:
        return _Decoded({_FLAGS[item]: True})
    phased = _V1_PHASED.fullmatch(item)
    name = _V1_VALUES.get(phased[1] if phased else item)
    if name is not None:
        number, _blank, unit = _text_of(found, "Data").partition(" ")
        value = parse_number(number)
        if value is None and name == "voltage":
            raise _Unreadable
        raw: dict[str, Any] = {name: value}
        phase = (phased[2] if phased else "") or asked.phase
        if phase and name != "power_limit":
            raw["phase"] = phase
        return _Decoded(raw, unit.strip(), "value")
    match item:
        case "Current Credit Register":
            parts = _text_of(found, "Data").split(",")
            credit = parse_number(parts[0])
            if credit is None:
                raise _Unreadable
            relay = parts[1] if len(parts) > 1 else ""
            return _Decoded({"kwh_credit_available": credit, "is_on": relay == "ON"}, relay=relay)
        case "Version":
            return _Decoded({"version": _version_text(found.get("Data"))})
        case "Date":
            text = _text_of(found, "Data")
            return _Decoded({"date_accepted": True} if text == "" else _date_parts(text))
        case _:
            return _Decoded(None)


def _version_text(raw: Any) -> str | None:
    if isinstance(raw, str):
        return raw
    number = _number(raw)
    return None if number is None else format(number, "f")


def _date_parts(text: str) -> dict[str, Any]:
    """Year, month and day of ``[yy]yy-mm-dd ...``; a part that cannot be read is None. Two digits mean 20xx (D-02)."""
    parts = [_integral(parse_number(part)) for part in text.partition(" ")[0].split("-")[:3]]
    year, month, day = [*parts, None, None, None][:3]
    return {"year": 2000 + year if year is not None and 0 <= year < 100 else year, "month": month, "day": day}


# section 4.5, by name

_V2_VALUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Current Credit Balance": "kwh_credit_available",
        "Phase-A Voltage": "voltage",
        "Power": "power",
        "Phase-A Current(A)": "current",
        "Maximum power threshold": "power_limit",
    }
)
_PREFIX_UNIT: Final = re.compile(r".*\(\s*([A-Za-z]{1,8})\s*\)\s*", re.DOTALL)


def _decode_v2(asked: _Asked, row: Mapping[str, Any]) -> _Decoded:
    title = _text_of(row, "name").strip()
    data = row.get("data")
    if (name := _V2_VALUES.get(title)) is not None:
        prefix = row.get("dataPrefix")
        unit = _PREFIX_UNIT.fullmatch(prefix) if isinstance(prefix, str) and len(prefix) <= 200 else None
        return _Decoded({name: _number(data)}, unit[1] if unit else "", "data_prefix")
    match title:
        case "Meter Firmware Version":
            return _Decoded({"version": _version_text(data)})
        case "Relay On/Off":
            return _Decoded({"turn_on_accepted" if data == "Connected" else "turn_off_accepted": True})
        case "Clock(time)" if asked.command is Command.SET_DATE:
            return _Decoded({"date_accepted": True})
        case "Clock(time)":
            return _Decoded(_date_parts(_text_of(row, "data")))
        case "Token":
            return _Decoded({"token_accepted": True})
        case _:
            return _Decoded(None)


# our form of the result: command-flow 1.2, D-01, D-02, D-03, D-12, D-34

_UNITS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "kwh_credit_available": {"kWh": 0, "Wh": -3, "MWh": 3},
        "voltage": {"V": 0, "mV": -3, "kV": 3},
        "current": {"A": 0, "mA": -3, "kA": 3},
        "power": {"W": 0, "kW": 3, "KW": 3, "MW": 6},
        "power_limit": {"W": 0, "kW": 3, "KW": 3, "MW": 6},
    }
)  # powers of ten to the unit of the result field: kWh, V, A, W, W
_READ_VALUES: Final[Mapping[Command, str]] = MappingProxyType(
    {
        Command.READ_CREDIT: "kwh_credit_available",
        Command.READ_VOLTAGE: "voltage",
        Command.READ_CURRENT: "current",
        Command.READ_POWER: "power",
        Command.READ_POWER_LIMIT: "power_limit",
    }
)
_OPPOSITE: Final[Mapping[Command, str]] = MappingProxyType(
    {Command.TURN_ON: "turn_off_accepted", Command.TURN_OFF: "turn_on_accepted"}
)


def _normalised(asked: _Asked, found: _Decoded) -> Mapping[str, Any] | Decision:
    raw = found.raw or {}
    command = asked.command
    if FAMILIES.get(command) is not Family.READ:
        if _OPPOSITE.get(command) in raw:
            return Decision.CONTRADICTION
        return {"accepted": True, "raw": dict(raw)}
    if command is Command.READ_VERSION:
        version = raw.get("version")
        return {"version": version.strip()} if isinstance(version, str) and version.strip() else Decision.READABLE
    if command is Command.READ_DATE:
        return _normal_date(raw)
    name = _READ_VALUES[command]
    value = raw.get(name)
    if not isinstance(value, Decimal):
        return Decision.READABLE
    if name == "power":
        return _normal_power(value, found)
    power_of_ten = _UNITS[name].get(found.unit) if found.unit else 0
    if power_of_ten is None:
        return Decision.READABLE  # a number of an unknown unit is no reading
    scaled = _scaled(value, power_of_ten)
    whole = _integral(scaled) if name == "power_limit" else None
    result: dict[str, Any] = {name: scaled if whole is None else whole}
    if name == "kwh_credit_available":
        if found.relay in ("ON", "OFF"):
            result["is_on"] = found.relay == "ON"
    elif command in PER_PHASE:
        if asked.api is Api.V2:
            result["phase"] = "A"
            if asked.three_phase:
                result["phases_missing"] = ["B", "C"]
        elif "phase" in raw:
            result["phase"] = raw["phase"]
    return result


def _normal_date(raw: Mapping[str, Any]) -> Mapping[str, Any] | Decision:
    year, month, day = raw.get("year"), raw.get("month"), raw.get("day")
    if year is None or month is None or day is None or _calendar_date(year, month, day) is None:
        return Decision.READABLE
    return {"year": year, "month": month, "day": day}


def _normal_power(value: Decimal, found: _Decoded) -> Mapping[str, Any]:
    """D-03: ``power_w`` only where the vendor's text names a known unit; otherwise nothing is computed."""
    power_of_ten = _UNITS["power"].get(found.unit)
    return {
        "power_w": None if power_of_ten is None else _scaled(value, power_of_ten),
        "power": value,
        "unit": found.unit[:20] or "unknown",
        "unit_source": "unknown" if power_of_ten is None else found.unit_source,
    }


def _scaled(value: Decimal, power_of_ten: int) -> Decimal:
    """Exactly value x 10^power_of_ten, digits kept, without an exponent above 0."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # a finite number
    exponent += power_of_ten
    if exponent > 0:
        digits, exponent = (*digits, *(0,) * exponent), 0
    return Decimal((sign, digits, exponent))


def head_end_name(name: str) -> str:
    """camelCase of a snake_case result field, as on the head-end's wire: ``kwhCreditAvailable``."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def head_end_data(raw: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """``Done.raw`` under the head-end's names; None where its result has no data."""
    return None if raw is None else {head_end_name(name): value for name, value in raw.items()}


def head_end_status(state: Done) -> str:
    return "EXECUTION_SUCCESS" if state.executed else "EXECUTION_FAILURE"


# ---------------------------------------------------------------- when to poll (section 5)


def poll_delay_s(age_s: float) -> float:
    """Seconds from a pending answer to the next poll, by the age of the command since it was enqueued (section 5.1)."""
    return next((delay for below, delay in POLL_DELAYS_S if age_s < below), POLL_DELAY_LATE_S)


def is_over_age(age_s: float) -> bool:
    """A task older than 48 h is given up for good and never sent again (section 5.2)."""
    return age_s > MAX_AGE_S


# ---------------------------------------------------------------- a token is issued, or not (section 6)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token of the vendor's; a secret until it is used."""

    token: str = field(repr=False)


def judge_issued(api: Api, command: Command, request: Request, answer: Body | Failed) -> IssuedToken | Failed:
    """Classify the answer to ``issue_token``: a token text decides, whatever the code (section 6).

    A failure with ``may_have_arrived`` may have been a sale: its outcome is unknown and it is not tried again.
    """
    if isinstance(answer, Failed):
        return answer
    value = answer.value
    if api is Api.V1 and command is not Command.TOP_UP:
        token = _member(value, "result")
    else:
        token = _member(_object(value, "result"), "token")
    if isinstance(token, str) and token.strip():
        return IssuedToken(token.strip())
    code = _member(value, "result_code" if api is Api.V1 else "code")
    return Failed(
        failure=FailureClass.TOKEN_NOT_ISSUED,
        vendor_reason=_reason(request, value, "reason"),
        may_have_arrived=_whole(code) == 0,
    )


def judge_sts_service(request: Request, answer: Body | Failed) -> IssuedToken | Failed:
    """Classify the answer of the token generator service: ``{"token": text}``."""
    if isinstance(answer, Failed):
        return answer
    token = _member(answer.value, "token")
    if isinstance(token, str) and token.strip():
        return IssuedToken(token.strip())
    return Failed(failure=FailureClass.TOKEN_NOT_ISSUED, vendor_reason=_reason(request, answer.value, "message"))


# ---------------------------------------------------------------- answers of section 7


@dataclass(frozen=True, slots=True)
class ConcentratorState:
    concentrator: str
    online: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyDay:
    """One meter's day in grid-local time: kWh per hour, 24 of them, None where the vendor gives no number."""

    meter: str
    day: date
    total_kwh: Decimal | None
    credit_kwh: Decimal | None
    relay: str
    hours_kwh: tuple[Decimal | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyReport:
    """One meter's day in local time (v2): kWh per hour and tariff; ``flags`` under the vendor's names."""

    day_text: str
    total_t1_kwh: Decimal | None
    total_t2_kwh: Decimal | None
    remain_t1_kwh: Decimal | None
    remain_t2_kwh: Decimal | None
    hours_t1_kwh: tuple[Decimal | None, ...]
    hours_t2_kwh: tuple[Decimal | None, ...]
    demand: Decimal | None
    flags: Mapping[str, bool]


DAILY_FLAGS: Final = (
    "status_Relay",
    "status_Battery",
    "status_Magnetic",
    "status_Cover_Terminal",
    "status_Cover_Upper",
    "status_Cover_Box",
    "status_Current_Direction",
    "status_Current_Unbalance",
)


def _unusable(request: Request, value: Any, what: str, reason_name: str) -> RemoteProtocolError:
    reason = _reason(request, value, reason_name)
    return RemoteProtocolError(f"The answer to {request.name} {what}{f' ({reason})' if reason else ''}.")


def judge_row(request: Request, body: Body) -> Any:
    """The row of a provisioning call, ``result[0]``. Raises RemoteProtocolError when there is none."""
    row = _first(_member(body.value, "result"))
    if row is None or row is False or row == "":
        raise _unusable(request, body.value, "confirms nothing; the change was not made", "reason")
    return row


def judge_point_number(request: Request, body: Body) -> int:
    """The point number of a meter in its concentrator's file. Raises RemoteProtocolError."""
    row = _first(_member(_object(body.value, "result"), "data"))
    number = _integral(_number(_member(row, "pn")))
    if number is None or number < 0:
        raise _unusable(request, body.value, "holds no point number; the meter may not be in the file", "reason")
    return number


def judge_online(api: Api, request: Request, body: Body) -> tuple[ConcentratorState, ...]:
    """Which concentrators are online. Rows without an id are left out. Raises RemoteProtocolError: no list."""
    if api is Api.V1:
        rows, id_name, state_name, reason = _member(body.value, "Result"), "ConcentratorNo", "Status", "Reason"
    else:
        rows = _member(_object(body.value, "result"), "data")
        id_name, state_name, reason = "concentratorId", "status", "reason"
    if not isinstance(rows, list):
        raise _unusable(request, body.value, "holds no list of concentrators", reason)
    return tuple(
        ConcentratorState(name, _is_truthy(_member(row, state_name)))
        for row in rows
        if (name := _task_id_or_none(_member(row, id_name)))
    )


def _task_id_or_none(raw: Any) -> str:
    try:
        return _task_id(raw)
    except RemoteProtocolError:
        return ""


def _is_truthy(raw: Any) -> bool:
    if isinstance(raw, str):
        return raw.strip().lower() not in ("", "0", "false", "no", "off", "offline")
    return bool(raw)


def judge_hourly(request: Request, body: Body) -> tuple[HourlyDay, ...]:
    """Rows of ``/COMM_HourlyDataNew``; a row without meter or date is left out. Raises RemoteProtocolError: no list."""
    rows = _member(body.value, "Result")
    if not isinstance(rows, list):
        raise _unusable(request, body.value, "holds no list of days", "Reason")
    found = []
    for row in rows:
        meter = _task_id_or_none(_member(row, "MeterNo"))
        parts = [_integral(_number(_member(row, name))) for name in ("Year", "Month", "Day")]
        day = None if None in parts else _calendar_date(*(part or 0 for part in parts))
        if not meter or day is None:
            continue
        relay = row.get("RelayStatus")
        found.append(
            HourlyDay(
                meter=meter,
                day=day,
                total_kwh=_number(row.get("TotalUnitsCounter")),
                credit_kwh=_number(row.get("CurrentCreditRegister")),
                relay=relay[:40] if isinstance(relay, str) else "",
                hours_kwh=tuple(_number(row.get(f"HourlyConsumption_{hour}to{hour + 1}")) for hour in range(24)),
            )
        )
    return tuple(found)


def judge_daily(request: Request, body: Body) -> DailyReport | None:
    """The first row of ``/API/DailyReport/Read``; None when it has no row (a day without consumption is left out).

    Raises:
        RemoteProtocolError: no list of rows.
    """
    rows = _member(_object(body.value, "result"), "data")
    if not isinstance(rows, list):
        raise _unusable(request, body.value, "holds no list of days", "reason")
    row = _first(rows)
    if not isinstance(row, dict):
        return None
    day = row.get("currentDate")
    return DailyReport(
        day_text=day[:40] if isinstance(day, str) else "",
        total_t1_kwh=_number(row.get("totalT1")),
        total_t2_kwh=_number(row.get("totalT2")),
        remain_t1_kwh=_number(row.get("remainT1")),
        remain_t2_kwh=_number(row.get("remainT2")),
        hours_t1_kwh=tuple(_number(row.get(f"hourT1_{hour:02}")) for hour in range(1, 25)),
        hours_t2_kwh=tuple(_number(row.get(f"hourT2_{hour:02}")) for hour in range(1, 25)),
        demand=_number(row.get("demand")),
        flags={name: item for name in DAILY_FLAGS if isinstance(item := row.get(name), bool)},
    )
