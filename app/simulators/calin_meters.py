"""Simulated CALIN meters: what they measure, carry out and refuse.

A ``MeterField`` holds the meters and may be shared by several head-ends (``chirpstack``, ``calin_vendor``), so that a
test can ask one journal what was carried out, whichever way it came. Where the specifications (calin-lorawan.md,
calin-api.md) say nothing, the choice made here stands in a comment beginning with "Choice:".
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from hashlib import sha256
from typing import Final, NamedTuple

from app.errors import ConfigError
from app.protocols.calin_lorawan import MeterStatus, Report
from app.simulators._http import FaultKind, Faults, SimClock, Struck, is_seconds

OLD_FIRMWARE: Final = "2F6B4584"  # calin-api.md 8: cannot give its power limit over v1
HOUR_S: Final = 3600
WATT_SECONDS: Final = 3_600_000  # per kWh
TOKENS: Final = frozenset({"TOP_UP", "SET_POWER_LIMIT", "CLEAR_TAMPER", "CLEAR_CREDIT", "DELIVER_PREEXISTING_TOKEN"})

# --------------------------------------------------------------------------------------------------------------- faults

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
