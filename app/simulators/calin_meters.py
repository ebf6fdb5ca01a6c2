"""Simulated CALIN meters, and what the head-ends that reach them stand on: time, faults, one small HTTP server.

A ``MeterField`` holds the meters and may be shared by several head-ends (``chirpstack``, ``calin_vendor``), so that a
test can ask one journal what was carried out, whichever way it came. Where the specifications (calin-lorawan.md,
calin-api.md) say nothing, the choice made here stands in a comment beginning with "Choice:".
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from hashlib import sha256
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl

import h11

from app.errors import ConfigError, LinkError, LinkReason
from app.protocols.calin_lorawan import MeterStatus, Report

HOST: Final = "127.0.0.1"  # a simulator is never offered to the network
MAX_BODY: Final = 1 << 20
MAX_CONNECTIONS: Final = 256
REQUEST_S: Final = 30.0  # a request has to arrive in this time, else the connection is closed
CLOSE_S: Final = 5.0  # longest wait for the peer to take the rest of an answer
OLD_FIRMWARE: Final = "2F6B4584"  # calin-api.md 8: cannot give its power limit over v1
HOUR_S: Final = 3600
WATT_SECONDS: Final = 3_600_000  # per kWh
TOKENS: Final = frozenset({"TOP_UP", "SET_POWER_LIMIT", "CLEAR_TAMPER", "CLEAR_CREDIT", "DELIVER_PREEXISTING_TOKEN"})

# ----------------------------------------------------------------------------------------------------------------- time


class SimClock:
    """Simulated time: ``time_scale`` times as fast as ``monotonic`` (seconds), from ``start`` (aware; None: now).

    With ``time_scale`` 0 it stands still and only ``advance`` moves it. ``sleep`` ends at once when ``advance`` passes
    its end, so that a test never waits.

    Raises:
        ConfigError: a scale below 0, or a start without a zone.
    """

    def __init__(
        self,
        *,
        time_scale: float = 1.0,
        start: datetime | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (math.isfinite(time_scale) and time_scale >= 0):
            raise ConfigError("Time cannot run like that.", key="time_scale", expected="0 or more")
        if start is not None and start.tzinfo is None:
            raise ConfigError("The time has no zone.", key="start", expected="an aware time")
        self.start = (start or datetime.now(UTC)).astimezone(UTC)
        self._scale = time_scale
        self._monotonic = monotonic
        self._origin = monotonic()
        self._skipped = 0.0
        self._jumped = asyncio.Event()

    @property
    def elapsed(self) -> float:
        """Simulated seconds since the start."""
        return (self._monotonic() - self._origin) * self._scale + self._skipped

    @property
    def now(self) -> datetime:
        """Simulated time, UTC."""
        return self.start + timedelta(seconds=self.elapsed)

    def advance(self, seconds: float) -> None:
        """Let simulated time jump forward; call it from the loop that runs the simulators."""
        self._skipped += seconds
        passed, self._jumped = self._jumped, asyncio.Event()
        passed.set()

    async def sleep(self, seconds: float) -> None:
        """Return after so many simulated seconds; 0 gives others a turn."""
        end = self.elapsed + seconds
        while (left := end - self.elapsed) > 1e-9:
            wait = max(left / self._scale, 0.0005) if self._scale else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._jumped.wait()
        await asyncio.sleep(0)


# --------------------------------------------------------------------------------------------------------------- faults

Check = Callable[[str], bool]
Struck = Callable[[str], str | None]
"""Value of the fault of that name if it strikes here and now, else None."""


def is_empty(text: str) -> bool:
    return not text


def is_seconds(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) is not None


def is_http_status(text: str) -> bool:
    return re.fullmatch(r"[2-5][0-9]{2}", text) is not None


def is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", text) is not None


def one_of(*values: str) -> Check:
    return lambda text: text in values


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One fault: what it does, its value when none is given. ``lasting``: a state without scope and count."""

    help: str
    default: str = ""
    check: Check = is_empty
    lasting: bool = False


FAULT_SYNTAX: Final = "name[=value][@METHOD/path or @meter][#count], for example late=5@47000000019#2"
_SPEC: Final = re.compile(
    r"(?P<name>[a-z0-9-]+)(?:=(?P<value>[^@#]*))?(?:@(?P<scope>[A-Za-z0-9/_.-]+))?(?:#(?P<count>[0-9]{1,9}))?"
)


def fault_help(kinds: Mapping[str, FaultKind]) -> dict[str, str]:
    """Name -> help, for ``sim list`` and ``--help``."""
    return {name: kind.help + (f" (default {kind.default})" if kind.default else "") for name, kind in kinds.items()}


@dataclass(slots=True)
class _Fault:
    name: str
    value: str
    scope: str
    left: int | None  # how often it still strikes; None: always

    def text(self) -> str:
        count = "" if self.left is None else f"#{self.left}"
        return f"{self.name}{'=' if self.value else ''}{self.value}{'@' if self.scope else ''}{self.scope}{count}"

    def meets(self, where: Iterable[str]) -> bool:
        return not self.scope or any(place == self.scope or place.startswith(f"{self.scope}/") for place in where)


class Faults:
    """The faults in force, settable at run time; ``changed`` is called after every change."""

    def __init__(self, kinds: Mapping[str, FaultKind], changed: Callable[[], None] = lambda: None) -> None:
        self._kinds = kinds
        self._active: list[_Fault] = []
        self._changed = changed

    def set(self, spec: str) -> None:
        """Put a fault in force, see ``FAULT_SYNTAX``. The same fault with the same scope is replaced.

        Without a value the fault's default holds; without scope it strikes everywhere, without count every time.

        Raises:
            ConfigError: unknown fault, value outside its range, or scope or count for a lasting one.
        """
        match = _SPEC.fullmatch(spec.strip())
        kind = self._kinds.get(match["name"]) if match else None
        if match is None or kind is None:
            raise ConfigError(f"{spec!r} is not a fault.", key="fault", expected=f"{FAULT_SYNTAX}; see sim list")
        name, scope = match["name"], match["scope"] or ""
        value = kind.default if match["value"] is None else match["value"]
        if not kind.check(value):
            raise ConfigError(f"{value!r} is not a value for this fault.", key=f"fault {name}", expected=kind.help)
        count = int(match["count"]) if match["count"] else None
        if kind.lasting and (scope or count is not None):
            raise ConfigError("This fault takes no scope and no count.", key=f"fault {name}", expected="name[=value]")
        self._active = [fault for fault in self._active if (fault.name, fault.scope) != (name, scope)]
        if count != 0:
            self._active.append(_Fault(name, value, scope, count))
        self._changed()

    def clear(self, *names: str) -> None:
        """End these faults, or all when none is named.

        Raises:
            ConfigError: unknown fault.
        """
        for name in names:
            if name not in self._kinds:
                raise ConfigError(f"{name!r} is not a fault.", key="fault", expected="see sim list")
        self._active = [fault for fault in self._active if names and fault.name not in names]
        self._changed()

    def active(self) -> list[str]:
        """The faults in force, in the syntax of ``set``, with the counts that are left."""
        return [fault.text() for fault in self._active]

    def value(self, name: str) -> str | None:
        """Value of a lasting fault, None when it is not in force."""
        return next((fault.value for fault in self._active if fault.name == name), None)

    def take(self, name: str, *where: str) -> str | None:
        """Value of the fault if it strikes at one of these places, else None. Counts down, and ends it at 0."""
        for fault in self._active:
            if fault.name == name and fault.meets(where):
                if fault.left is not None:
                    fault.left -= 1
                    if not fault.left:
                        self._active.remove(fault)
                return fault.value
        return None


METER_FAULTS: Final[Mapping[str, FaultKind]] = {
    "silence": FaultKind("nothing reaches the meter, nothing is carried out, no answer"),
    "mute": FaultKind("the meter carries the command out, its answer is lost"),
    "late": FaultKind("the meter carries out at once and answers this many seconds late", "15", is_seconds),
    "refuse-token": FaultKind("the meter refuses the token"),
    "refuse": FaultKind("the meter answers that it did not carry out the read or write"),
    "relay-stuck": FaultKind("the meter says yes to on and off, its relay does not move"),
    "wrong-checksum": FaultKind("carried out; the checksum of the meter's frame is wrong"),
    "garbage": FaultKind("carried out; the meter's answer is no frame"),
}


# ----------------------------------------------------------------------------------------------------- simulated tokens


class TokenMeaning(NamedTuple):
    """What a simulated token does: its command, and kWh or W."""

    command: str
    value: Decimal


_KINDS: Final = ("TOP_UP", "SET_POWER_LIMIT", "CLEAR_TAMPER", "CLEAR_CREDIT")
_PLACES: Final[Mapping[str, int]] = {"TOP_UP": 2}  # decimal places of the value


def make_token(decoder_key: str, command: str, value: Decimal, number: int) -> str:
    """A 20-digit token that only the meter with this key takes; ``number`` keeps equal ones apart.

    Not the cipher of STS: ``7``, kind, value (8 digits), number (6), check (1), mark of the key (3).

    Raises:
        ConfigError: a command without token, or a value that 8 digits cannot hold.
    """
    if command not in _KINDS:
        raise ConfigError(f"No token is made for {command}.", key="command", expected=", ".join(_KINDS))
    scaled = int(value.scaleb(_PLACES.get(command, 0))) if 0 <= value < 10**8 else -1
    if not 0 <= scaled < 10**8:
        raise ConfigError(f"{value} does not fit into a token.", key="value", expected="8 digits")
    head = f"7{_KINDS.index(command) + 1}{scaled:08}{number % 10**6:06}"
    return head + _check(head) + _mark(head, decoder_key)


def _check(head: str) -> str:
    return str(zlib.crc32(head.encode()) % 10)


def _mark(head: str, decoder_key: str) -> str:
    return f"{zlib.crc32((head + decoder_key.upper()).encode()) % 1000:03}"


def _read_token(token: str, decoder_key: str) -> TokenMeaning | bool:
    """What it does; False when it is meant for another meter, True when it is none that ``make_token`` made."""
    head = token[:16]
    if head[0] != "7" or head[1] not in "1234" or token[16] != _check(head):
        return True
    if token[17:] != _mark(head, decoder_key):
        return False
    command = _KINDS[int(head[1]) - 1]
    return TokenMeaning(command, Decimal(int(head[2:10])).scaleb(-_PLACES.get(command, 0)))


# --------------------------------------------------------------------------------------------------------------- meters


def calin_serial(number: int) -> str:
    """An 11-digit serial: ``47``, 8 digits, Luhn check digit."""
    digits = f"47{number:08}"
    total = 0
    for at, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if at % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return f"{digits}{-total % 10}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalinMeterConfig:
    """How a meter stands at the start. Energies in kWh, power in W (0: no limit), voltage in V.

    ``decoder_key`` "" derives one from the serial. ``is_strict``: a token that no simulator made is refused; otherwise
    it is taken once, as a meter takes a token it can decode, and changes nothing.
    """

    serial: str
    phases: int = 1
    credit: Decimal = Decimal("25.00")
    is_on: bool = True
    power_limit: int = 0
    load: Decimal = Decimal(350)
    voltage: Decimal = Decimal(230)
    version: str = "3A1C0021"
    tamper: bool = False
    grid: str = "grid-1"
    concentrator: str = "230401081"
    utc_offset_h: float = 1.0
    clock_offset_s: float = 0.0
    energy: Decimal = Decimal("1200.00")
    decoder_key: str = ""
    is_strict: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Executed:
    """One thing a meter did, or refused. ``via`` names the head-end; ``detail`` what a token or a write said."""

    at: datetime
    command: str
    token: str = field(default="", repr=False)
    detail: str = ""
    via: str = ""


class CalinMeter:
    """One meter. ``executed`` holds everything it carried out in order, ``refused`` what it did not."""

    WAVE_S: Final = 900.0  # the load rises and falls once in this time
    WAVE: Final = 0.2  # by this share
    VOLT_WAVE_S: Final = 611.0

    def __init__(self, config: CalinMeterConfig, owner: MeterField) -> None:
        if re.fullmatch(r"[0-9]{11}", config.serial) is None:
            raise ConfigError(f"{config.serial!r} is no serial.", key="serial", expected="11 digits")
        if config.phases not in (1, 3):
            raise ConfigError("There is no such meter.", key="phases", expected="1 or 3")
        self.config = config
        self.serial = config.serial
        self.phases = "ABC"[: config.phases]
        self.decoder_key = config.decoder_key or sha256(config.serial.encode()).hexdigest()[:16].upper()
        self.faults = Faults(METER_FAULTS)
        self.executed: list[Executed] = []
        self.refused: list[Executed] = []
        self.power_limit = config.power_limit
        self.version = config.version
        self.tamper = config.tamper
        self.clock_offset = timedelta(seconds=config.clock_offset_s)
        self._field = owner
        self._clock = owner.clock
        self._credit = config.credit
        self._energy = config.energy
        self._is_on = config.is_on and config.credit > 0
        self._used_up = config.is_on and config.credit <= 0
        self._used_tokens: set[str] = set()
        self._token_number = 0
        self._then = self._clock.elapsed
        self._phase_angle = (zlib.crc32(f"{config.seed}/{config.serial}".encode()) % 6283) / 1000
        self._epoch = self._clock.start.timestamp() + config.utc_offset_h * HOUR_S
        self._hours: dict[int, Decimal] = {}  # kWh by grid-local hours since 1970

    # -- what it measures

    @property
    def credit(self) -> Decimal:
        """Credit left, kWh, cut to 0.01."""
        self.catch_up()
        return self._credit.quantize(Decimal("0.01"), ROUND_DOWN)

    @property
    def energy(self) -> Decimal:
        """Consumption register, kWh, cut to 0.01."""
        self.catch_up()
        return self._energy.quantize(Decimal("0.01"), ROUND_DOWN)

    @property
    def is_on(self) -> bool:
        """Relay closed."""
        self.catch_up()
        return self._is_on

    @property
    def is_dark(self) -> bool:
        """No voltage at its grid; it hears and says nothing."""
        return self._field.is_dark(self.config.grid)

    @property
    def time(self) -> datetime:
        """What its clock shows, grid-local, without zone."""
        local = self._clock.now + timedelta(hours=self.config.utc_offset_h) + self.clock_offset
        return local.replace(tzinfo=None)

    def voltage(self, phase: str = "A") -> Decimal:
        """V, cut to 0.01."""
        if self.is_dark:
            return Decimal("0.00")
        angle = 2 * math.pi * self._clock.elapsed / self.VOLT_WAVE_S + self._phase_angle + "ABC".index(phase)
        return (self.config.voltage + Decimal(4 * math.sin(angle))).quantize(Decimal("0.01"), ROUND_DOWN)

    def power(self, phase: str = "") -> Decimal:
        """W, cut to 0.1; "" is the sum of the phases."""
        if self.is_dark or not self.is_on:
            return Decimal("0.0")
        share = 1 if not phase else len(self.phases)
        wave = 1 + self.WAVE * math.sin(self._angle(self._clock.elapsed))
        return (Decimal(self._mean_load() * wave) / share).quantize(Decimal("0.1"), ROUND_DOWN)

    def current(self, phase: str = "A") -> Decimal:
        """A, cut to 0.01."""
        voltage = self.voltage(phase)
        amperes = self.power(phase) / voltage if voltage else Decimal(0)
        return amperes.quantize(Decimal("0.01"), ROUND_DOWN)

    def hours(self, day: date) -> list[Decimal]:
        """Consumption of the 24 grid-local hours of a day, kWh. Choice: before the start, what the load would use."""
        self.catch_up()
        first = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) // HOUR_S
        now = self._hour(self._clock.elapsed)
        found = []
        for hour in range(first, first + 24):
            begin = float(hour * HOUR_S) - self._epoch
            used = self._hours.get(hour, Decimal(0))
            if begin < 0 and hour <= now:
                used += self._energy_of(begin, min(begin + HOUR_S, 0.0))
            found.append(used.quantize(Decimal("0.001"), ROUND_DOWN))
        return found

    def report(self, *, minutes: bool = False) -> Report:
        """The periodic report; its time is cut to the hour, or to the minute."""
        shown = self.time if minutes else self.time.replace(minute=0)
        # Choice: direct reads are cut to 0.01 A, the report's three places are filled up.
        return Report(
            freeze_time=f"{shown:%Y-%m-%d %H:%M}",
            consumption_source_1=self.energy,
            purchase_remain_source_1=self.credit,
            consumption_source_2=Decimal(0),
            purchase_remain_source_2=Decimal(0),
            interval_demand=int(self.power()),
            voltage=self.voltage().quantize(Decimal("0.1"), ROUND_DOWN),
            current=self.current().quantize(Decimal("0.001")),
            meter_status=MeterStatus(not self.is_on, False, False, False, self.tamper, False, False, False),
        )

    # -- what it does

    @property
    def effects(self) -> list[Executed]:
        """What it carried out and was no read, in order."""
        return [entry for entry in self.executed if not entry.command.startswith("READ_")]

    def issue(self, command: str, value: Decimal = Decimal(0)) -> str:
        """A fresh token for this meter: kWh for TOP_UP, W for SET_POWER_LIMIT. Raises ConfigError."""
        self._token_number += 1
        return make_token(self.decoder_key, command, value, self._token_number)

    def struck(self, name: str) -> str | None:
        """The meter's own faults, as a ``Struck``."""
        return self.faults.take(name)

    def execute(
        self,
        command: str,
        *,
        phase: str = "",
        token: str = "",
        values: Mapping[str, int] | None = None,
        via: str = "",
        struck: Struck | None = None,
    ) -> bool:
        """Carry a command out; the values of a read are taken from the properties. False: the meter refuses.

        Args:
            command: a name of command-flow.md 1.1; every token command is the same here.
            values: year, month, day of SET_DATE (with ``midnight`` 1 the time is cleared); hour, minute, second.
            struck: the faults that may strike; None: the meter's own.
        """
        self.catch_up()
        struck = struck or self.struck
        detail = phase
        if command in TOKENS:
            detail = "" if struck("refuse-token") is not None else self._take_token(token)
            done = bool(detail)
        elif struck("refuse") is not None:
            done = False
        elif command.startswith("READ_"):
            done = not phase or phase in self.phases  # Choice: a phase that is not there is refused
        else:
            detail = self._write(command, values or {}, struck)
            done = bool(detail)
        entry = Executed(self._clock.now, command, token, detail, via)
        (self.executed if done else self.refused).append(entry)
        return done

    def _write(self, command: str, values: Mapping[str, int], struck: Struck) -> str:
        match command:
            case "TURN_ON" | "TURN_OFF" if struck("relay-stuck") is not None:
                return "stuck"
            case "TURN_ON":
                if self._credit <= 0:  # Choice: without credit the relay cannot be closed
                    return ""
                self._is_on = True
                return "on"
            case "TURN_OFF":
                self._is_on = self._used_up = False
                return "off"
            case "SET_DATE" | "SET_TIME":
                parts = {name: part for name, part in values.items() if name not in ("weekday", "midnight")}
                try:
                    shown = self.time.replace(**parts)  # type: ignore[arg-type]
                except ValueError:
                    return ""
                if values.get("midnight"):
                    shown = shown.replace(hour=0, minute=0, second=0)
                self.clock_offset += shown - self.time
                return f"{shown:%Y-%m-%d %H:%M:%S}"
        return ""

    def _take_token(self, token: str) -> str:
        """What the token did, "" when it is refused: wrong form, used before, or meant for another meter."""
        if re.fullmatch(r"[0-9]{20}", token) is None or token in self._used_tokens:
            return ""
        meaning = _read_token(token, self.decoder_key)
        if meaning is False or (meaning is True and self.config.is_strict):
            return ""
        self._used_tokens.add(token)
        if not isinstance(meaning, TokenMeaning):
            return "taken without effect"
        match meaning.command:
            case "TOP_UP":
                self._credit += meaning.value
                if self._used_up and self._credit > 0:  # Choice: the supply comes back with the credit
                    self._is_on, self._used_up = True, False
            case "SET_POWER_LIMIT":
                self.power_limit = int(meaning.value)
            case "CLEAR_TAMPER":
                self.tamper = False
            case "CLEAR_CREDIT":
                self._use_up()
        return f"{meaning.command} {meaning.value}"

    # -- consumption

    def set_credit(self, credit: Decimal) -> None:
        """Set the credit as a person would by keypad; at 0 the relay opens."""
        self.catch_up()
        self._credit = credit
        if credit <= 0:
            self._use_up()

    def catch_up(self) -> None:
        """Use credit for the time that has passed; at zero the relay opens."""
        now = self._clock.elapsed
        while self._then < now:
            hour = self._hour(self._then)
            end = min(now, max(float((hour + 1) * HOUR_S) - self._epoch, self._then + 1e-6))
            if self._is_on and not self.is_dark:
                used = min(self._energy_of(self._then, end), self._credit)
                self._credit -= used
                self._energy += used
                self._hours[hour] = self._hours.get(hour, Decimal(0)) + used
                if self._credit <= 0:
                    self._use_up()
            self._then = end

    def _use_up(self) -> None:
        self._used_up = self._used_up or self._is_on
        self._credit = Decimal(0)
        self._is_on = False

    def _mean_load(self) -> float:
        load = float(self.config.load)
        # Choice: consumers keep below the limit, so that the relay does not trip by itself.
        return min(load, 0.8 * self.power_limit) if self.power_limit else load

    def _angle(self, elapsed: float) -> float:
        return 2 * math.pi * elapsed / self.WAVE_S + self._phase_angle

    def _energy_of(self, begin: float, end: float) -> Decimal:
        """kWh that the load uses between two moments (the integral of ``power``)."""
        wave = self.WAVE * self.WAVE_S / (2 * math.pi)
        seconds = end - begin + wave * (math.cos(self._angle(begin)) - math.cos(self._angle(end)))
        return Decimal(max(self._mean_load() * seconds, 0.0) / WATT_SECONDS).quantize(Decimal("0.000000001"))

    def _hour(self, elapsed: float) -> int:
        return int((self._epoch + elapsed + 1e-6) // HOUR_S)


class MeterField:
    """Meters by serial, their clock, and which grids are dark. Shared by the head-ends that reach them.

    Raises:
        ConfigError: a serial twice, or a meter that cannot be.
    """

    def __init__(self, meters: Iterable[CalinMeterConfig] = (), *, clock: SimClock | None = None) -> None:
        self.clock = clock or SimClock()
        self.meters: dict[str, CalinMeter] = {}
        self.listeners: list[Callable[[], None]] = []  # called after every change of what is dark
        self._dark: set[str] = set()
        self._all_dark = False
        for config in meters:
            self.add(config)

    def __getitem__(self, serial: str) -> CalinMeter:
        return self.meters[serial]

    def add(self, config: CalinMeterConfig) -> CalinMeter:
        """Put a meter into the field. Raises ConfigError: there is one with this serial, or a wrong value."""
        if config.serial in self.meters:
            raise ConfigError(f"There are two meters {config.serial}.", key="serial", expected="each once")
        meter = self.meters[config.serial] = CalinMeter(config, self)
        return meter

    def set_dark(self, dark: bool, grid: str = "") -> None:
        """Cut or give back the voltage of a grid, or of all."""
        self.catch_up()
        if not grid:
            self._all_dark = dark
            if not dark:
                self._dark.clear()
        elif dark:
            self._dark.add(grid)
        else:
            self._dark.discard(grid)
        for listener in self.listeners:
            listener()

    def is_dark(self, grid: str) -> bool:
        return self._all_dark or grid in self._dark

    def catch_up(self) -> None:
        """Let every meter use credit up to now."""
        for meter in self.meters.values():
            meter.catch_up()

    def by_key(self, decoder_key: str) -> CalinMeter | None:
        """The meter with this decoder key."""
        return next((m for m in self.meters.values() if m.decoder_key == decoder_key.upper()), None)


def demo_field(
    count: int = 4, *, clock: SimClock | None = None, seed: int = 0, template: CalinMeterConfig | None = None
) -> MeterField:
    """A field of meters 1 to ``count``; every third has three phases."""
    base = template or CalinMeterConfig(serial=calin_serial(0))
    return MeterField(
        (
            replace(base, serial=calin_serial(n), phases=3 if n % 3 == 0 else base.phases, seed=seed)
            for n in range(1, count + 1)
        ),
        clock=clock,
    )


# ---------------------------------------------------------------------------------------------------------- HTTP server

WIRE_FAULTS: Final[Mapping[str, FaultKind]] = {
    "no-answer": FaultKind("take the request, carry nothing out, never answer"),
    "http-error": FaultKind("answer with this status, nothing carried out", "500", is_http_status),
    "slow-accept": FaultKind("carry out at once, answer this many seconds late", "15", is_seconds),
    "lose-answer": FaultKind("carry out, then close without an answer"),
    "reset": FaultKind("carry out, send half of the body, then reset the connection"),
    "html": FaultKind(
        "an HTML page with status 200, nothing carried out; with =after it is carried out", "", one_of("", "after")
    ),
    "not-json": FaultKind("carry out, answer with text that is no JSON"),
}
HTML_PAGE: Final = "<!DOCTYPE html><html><head><title>Service</title></head><body><h1>Please wait</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body's value, None when it is no JSON."""
        try:
            return json.loads(self.body, parse_float=Decimal)
        except (ValueError, RecursionError):
            return None


@dataclass(slots=True)
class Answer:
    """What is sent back; ``text`` replaces the JSON of ``value``."""

    status: int = 200
    value: object = None
    text: str | None = None
    content_type: str = "application/json"


class HttpSim:
    """A small HTTP/1.1 server with faults, one request per connection: ``async with sim``, then ``sim.url`` answers.

    ``requests`` holds the last 1000 requests. Change faults from the loop that runs the simulator. A subclass gives
    ``_answer``; its background work goes through ``_spawn`` and ends with the context.

    Raises (on entering):
        ConfigError: a fault is wrong. LinkError: the port cannot be opened.
    """

    host: Final = HOST

    def __init__(
        self,
        name: str,
        kinds: Mapping[str, FaultKind],
        *,
        port: int,
        faults: tuple[str, ...],
        clock: SimClock,
        control: bool,
    ) -> None:
        self.name = name
        self.port = port
        self._first_faults = faults
        self.clock = clock
        self.faults = Faults(kinds, self._faults_changed)
        self.requests: deque[Request] = deque(maxlen=1000)
        self.request_count = 0
        self._kinds = kinds
        self._control = control
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()

    # -- for the subclass

    async def _answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def _subjects(self, request: Request) -> tuple[str, ...]:
        """The meters a request is about, for the scope of a fault."""
        return ()

    def _faults_changed(self) -> None:
        self._notify()

    def _error(self, status: int) -> object:
        """Body of an ``http-error``."""
        return {"Message": "fault on demand"}

    async def _started(self) -> None:
        """Called once inside the task group, after the port is open."""

    def _notify(self) -> None:
        """Something that ``wait_until`` may look at has changed."""
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._group is None:
            work.close()
            raise RuntimeError("the simulator is not running")
        task = self._group.create_task(work, name=f"{self.name}:{self.port}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- life

    async def __aenter__(self) -> Self:
        for spec in self._first_faults:
            self.faults.set(spec)
        try:
            self._server = await asyncio.start_server(self._accept, self.host, self.port)
        except OSError as exc:
            raise LinkError(
                f"The simulator cannot listen on {self.host}:{self.port} ({exc.strerror}). "
                "Choose another port, or 0 for a free one.",
                LinkReason.BUSY,
                may_have_arrived=False,
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(self._cancel)
            await self._started()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _cancel(self) -> None:
        if self._server is not None:
            self._server.close()
        self._group = None  # whoever comes now is turned away
        for task in list(self._tasks):
            task.cancel()

    async def _stop(self) -> None:
        self._group = None
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            _abort(writer)
        for _ in range(2):  # transports close their sockets in the loop's next rounds
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return f"http://{self.host}:{self.port}"

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at after every request, event and effect. No deadline."""
        while not condition():
            await self._changed.wait()

    # -- one connection, one request

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._group is None or len(self._writers) >= MAX_CONNECTIONS:
            _abort(writer)
            return
        self._writers.add(writer)
        self._spawn(self._connection(reader, writer), "connection")

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):  # the peer went away or was too slow; its own affair
                await self._serve(reader, writer)
                writer.close()
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()
        finally:
            self._writers.discard(writer)
            _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await _read_request(reader)
        except h11.RemoteProtocolError:
            writer.write(_render(Answer(400, {"message": "not HTTP"})))
            return
        if request is None:
            return
        if self._control and request.path == "/_sim/faults":
            writer.write(_render(self._control_answer(request)))
            return
        self.requests.append(request)
        self.request_count += 1
        self._notify()
        where = (request.path, f"{request.method}{request.path}", *self._subjects(request))

        def struck(name: str) -> str | None:
            return self.faults.take(name, *where)

        if struck("no-answer") is not None:
            while await reader.read(4096):
                pass
            return
        if (status := struck("http-error")) is not None:
            writer.write(_render(Answer(int(status), self._error(int(status)))))
            return
        page = struck("html")
        answer = Answer() if page == "" else await self._answer(request)
        if page is not None:
            answer = Answer(200, text=HTML_PAGE, content_type="text/html; charset=utf-8")
        elif struck("not-json") is not None:
            answer.text = '{"result": ['
        if (late := struck("slow-accept")) is not None:
            await self.clock.sleep(float(late))
        data = _render(answer)
        if struck("lose-answer") is not None:
            return
        if struck("reset") is not None:
            writer.write(data[: len(data) - 1 - len(data) // 4])
            await writer.drain()
            _reset(writer)
            return
        writer.write(data)
        await writer.drain()

    def _control_answer(self, request: Request) -> Answer:
        """``{"set": ["late=2"], "clear": ["silence"]}``; clear ``["*"]`` ends all; clear comes first."""
        body = request.json() if request.method == "POST" else {}
        try:
            wanted: list[Any] = [body.get(name, []) for name in ("clear", "set")] if isinstance(body, dict) else [None]
            if not all(isinstance(item, list) and all(isinstance(text, str) for text in item) for item in wanted):
                return Answer(422, {"detail": "expected lists of texts named set and clear"})
            for name in wanted[0]:
                self.faults.clear(*(() if name == "*" else (name,)))
            for spec in wanted[1]:
                self.faults.set(spec)
        except ConfigError as exc:
            return Answer(422, {"detail": str(exc)})
        return Answer(200, {"active": self.faults.active(), "known": fault_help(self._kinds)})


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """One whole request; None when the peer closed without one. Raises h11.RemoteProtocolError."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise h11.RemoteProtocolError("body too large", 413)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            path, _, query = head.target.decode("latin-1").partition("?")
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
            return Request(head.method.decode("ascii"), path, dict(parse_qsl(query)), headers, bytes(body))
        else:
            return None


REASONS: Final[Mapping[int, str]] = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 409: "Conflict", 500: "Internal Server Error",
}  # fmt: skip


def _render(answer: Answer) -> bytes:
    text = json.dumps(answer.value, default=_plain, ensure_ascii=False) if answer.text is None else answer.text
    body = text.encode()
    return (
        f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode("latin-1") + body


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset instead of an orderly end."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


# -------------------------------------------------------------------------------------------------- command-line values


def yes(text: str) -> bool:
    """``yes`` or ``no`` and the like. Raises ValueError."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def read_extra(extra: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The simulator's own settings of the command line, each read by its function.

    Raises:
        ConfigError: unknown name or bad value.
    """
    found = {}
    for name, text in extra.items():
        if name not in readers:
            raise ConfigError("Unknown setting of the simulator.", key=name, expected="one of " + ", ".join(readers))
        try:
            found[name] = readers[name](text)
        except (ValueError, ArithmeticError):
            raise ConfigError(f"{text!r} is not a value for it.", key=name) from None
    return found


def count(text: str) -> int:
    """A number of meters. Raises ValueError."""
    value = int(text)
    if not 0 <= value <= 1000:
        raise ValueError(text)
    return value


def seconds(text: str) -> float:
    """A finite number of 0 or more. Raises ValueError."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value
