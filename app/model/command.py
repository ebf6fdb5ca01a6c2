"""What a device can be told: command specifications, their parameters, limits and risk.

The command panel, the command line's ``commands`` and ``send`` and the gatekeeper's capability check are all built
from these records; adding a system adds specifications, never code in ``ui/`` or ``pipeline/``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

from app.errors import ParameterError

N = TypeVar("N", int, Decimal)


class CommandKind(StrEnum):
    """Class of a command; decides priority and which gatekeeper rules see it."""

    READ = "read"
    CONTROL = "control"
    WRITE = "write"
    TOKEN = "token"
    UNSOLICITED = "unsolicited"


class Risk(IntEnum):
    """How much asking a command needs (design.md section 6)."""

    READ = 0  # never asks
    WRITE = 1  # names meter, old and new value
    DANGEROUS = 2  # asks with the verb on the button
    TOP = 3  # asks for the serial number


class Resend(StrEnum):
    """Whether a second try can do harm when the first may have arrived (design.md section 4)."""

    SAFE = "safe"
    NEVER = "never"


class TokenUse(StrEnum):
    """Whether a command carries a prepayment token (command-flow 1.5)."""

    NONE = "none"
    MADE = "made"  # made for it, once, and stored with the interaction
    GIVEN = "given"  # the parameter ``token`` is it


class PhaseRule(StrEnum):
    """How the answers of three phases become one value (command-flow 1.4)."""

    NONE = ""
    MEAN = "mean"
    SUM = "sum"


class ReplyPattern(StrEnum):
    DIRECT = "direct"
    PULL = "pull"
    PUSH = "push"
    EFFECT = "effect"


class ParamType(StrEnum):
    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    TIME = "time"
    SECRET = "secret"
    PEM = "pem"
    FILE = "file"
    PORT = "port"  # a serial port or the URL of one (app/transports/line.py)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamSpec:
    """One typed field of a command or of a connection."""

    name: str
    title: str
    type: ParamType = ParamType.TEXT
    unit: str = ""
    required: bool = True
    default: Any = None
    minimum: Decimal | int | None = None
    maximum: Decimal | int | None = None
    max_bytes: int | None = None
    pattern: str | None = None
    choices: tuple[tuple[Any, str], ...] = ()  # of a text: the usual ones; any other may be typed
    help: str = ""
    kept_as: Callable[[str], str] | None = None  # of a secret: what is kept instead of its words (a hash)
    is_multiline: bool = False  # text of several lines
    only_for: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # asked for only while these fields say so

    def parse(self, value: Any) -> Any:
        """Check one value and give it its proper type (Decimal for decimals, UTC datetimes for times).

        Raises:
            ParameterError: names the parameter, the value's fault and the limit.
        """
        if value is None or (isinstance(value, str) and value == "" and self.type is not ParamType.TEXT):
            if self.required and self.default is None:
                raise self._error("is missing")
            return self.default
        match self.type:
            case ParamType.INTEGER:
                return self._limits(self._integer(value))
            case ParamType.DECIMAL:
                return self._limits(self._decimal(value))
            case ParamType.BOOLEAN:
                return self._boolean(value)
            case ParamType.CHOICE:
                return self._choice(value)
            case ParamType.TIME:
                return self._time(value)
            case ParamType.TEXT | ParamType.SECRET | ParamType.PEM | ParamType.FILE | ParamType.PORT:
                return self._text(value)

    def _error(self, what: str) -> ParameterError:
        plain = self.title.lower().replace(" ", "_") == self.name
        called = self.title if plain else f"{self.title} ({self.name})"
        return ParameterError(f"{called} {what.rstrip('.')}.", self.name)

    def _integer(self, value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", value):
            return int(value)
        raise self._error(f"must be a whole number, not {value!r}")

    def _decimal(self, value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
            raise self._error(f"must be a number, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error("must be a finite number")
        try:
            number = Decimal(str(value).strip())
        except InvalidOperation:
            raise self._error(f"must be a number, not {value!r}") from None
        if not number.is_finite():
            raise self._error("must be a finite number")
        return number

    def _limits(self, number: N) -> N:
        unit = f" {self.unit}" if self.unit else ""
        if self.minimum is not None and number < self.minimum:
            raise self._error(f"must be at least {self.minimum}{unit}, not {number}")
        if self.maximum is not None and number > self.maximum:
            raise self._error(f"must be at most {self.maximum}{unit}, not {number}")
        return number

    def _boolean(self, value: Any) -> bool:
        if isinstance(value, bool):
            return bool(value)
        if isinstance(value, str):
            match value.strip().lower():
                case "true" | "yes" | "on" | "1":
                    return True
                case "false" | "no" | "off" | "0":
                    return False
                case _:
                    pass
        raise self._error(f"must be yes or no, not {value!r}")

    def _choice(self, value: Any) -> Any:
        for key, title in self.choices:
            if value == key and isinstance(value, bool) == isinstance(key, bool):
                return key
            if isinstance(value, str) and value.strip().lower() in (str(key).lower(), title.lower()):
                return key
        allowed = ", ".join(str(key) for key, _title in self.choices)
        raise self._error(f"must be one of {allowed}, not {value!r}")

    def _time(self, value: Any) -> datetime:
        if isinstance(value, datetime):
            moment: datetime = value
        else:
            try:
                moment = datetime.fromisoformat(str(value))
            except ValueError:
                raise self._error(f"must be an ISO 8601 time, not {value!r}") from None
        if moment.tzinfo is None:
            raise self._error("needs a time zone, for example 2026-05-01T10:00:00Z")
        return moment

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self._error(f"must be text, not {value!r}")
        text: str = value
        if self.required and not text:
            raise self._error("must not be empty")
        if self.max_bytes is not None and len(text.encode()) > self.max_bytes:
            raise self._error(f"must be at most {self.max_bytes} bytes of UTF-8, not {len(text.encode())}")
        if text and self.pattern is not None and not re.fullmatch(self.pattern, text):
            raise self._error(f"has a form that is not allowed{': ' + self.help if self.help else ''}")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """One command of one device."""

    name: str
    title: str
    kind: CommandKind
    params: tuple[ParamSpec, ...] = ()
    risk: Risk = Risk.READ
    resend: Resend = Resend.SAFE
    pattern: ReplyPattern = ReplyPattern.DIRECT
    verb: str = ""  # on the button: "Start on {device}"
    help: str = ""
    warning: str = ""  # shown with the question for DANGEROUS and TOP
    field_group: str = ""  # writes of one group leave in creation order (D-25)
    group_rank: int = 0  # inside a group a lower rank goes first (4.3: CLEAR_CREDIT before TOP_UP)
    priority: int | None = None  # fixed priority, whoever asks (4.3); None: by kind and origin
    changes: str = ""  # shadow field whose old value the question shows; its new value is params[changes]
    follow_up: str = ""  # read sent after success
    follow_up_on_failure: str = ""  # read sent after failure
    # shadow field <- result field, or "param:x", or a value that is no text, on success
    shadow: Mapping[str, Any] = field(default_factory=dict)
    answer_timeout_s: float | None = None  # None: the adapter's
    pending_ttl_s: float | None = None  # None: the default for its kind and origin
    token: TokenUse = TokenUse.NONE
    reaches_device: bool = True  # False: it ends at a server, so the field's state does not matter
    per_phase: PhaseRule = PhaseRule.NONE  # a three-phase meter is asked phase by phase (command-flow 1.4)
    phase_field: str = ""  # the result field that the phases are combined in
    check: Callable[[Mapping[str, Any]], str] | None = None  # what is wrong with parameters taken together; "" if none
    caution: Callable[[Mapping[str, Any]], str] | None = None  # what to know before these are sent; never blocks
    forbidden: Callable[[Mapping[str, Any]], str] | None = None  # why a device's facts forbid it, unless forced
    confirm: Mapping[str, Any] = field(default_factory=dict)  # shadow field <- value ("param:x") that proves success
    supersedes: tuple[str, ...] = ()  # waiting commands of the same meter that this one replaces (G2)

    @property
    def has_effect(self) -> bool:
        """True when it may change something outside this program."""
        return self.kind not in (CommandKind.READ, CommandKind.UNSOLICITED)

    @property
    def changed_param(self) -> str:
        """The parameter with the new value of the shadow field ``changes``; "" when it changes none."""
        source = self.shadow.get(self.changes, "")
        if isinstance(source, str) and source.startswith("param:"):
            return source.removeprefix("param:")
        if self.changes and self.param(self.changes) is None and len(self.params) == 1:
            return self.params[0].name  # the shadow is told by the answer: the clock that was set
        return self.changes

    def param(self, name: str) -> ParamSpec | None:
        return next((p for p in self.params if p.name == name), None)


def check_params(specs: Sequence[ParamSpec], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Check ``given`` against ``specs`` and fill in defaults.

    Raises:
        ParameterError: unknown, missing or out of limits; the text lists what exists.
    """
    known = {spec.name for spec in specs}
    for name in given:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ParameterError(f"{what} has no parameter {name!r}; it has: {listed}.", name)
    return {spec.name: spec.parse(given.get(spec.name)) for spec in specs}
