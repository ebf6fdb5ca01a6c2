"""The meters of the IEC 62056-21 simulator: what each of them says, without a line.

``METERS`` is the table of types; ``MeterData`` is one meter with its clock, its settings and values that move with
time. Source of the rules: specs/iec62056-and-dlms.md part A; forms of values as in real readouts. Where nothing is
said the choice made stands in a comment beginning with "Choice:".
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final

from app.protocols import iec62056_21 as iec

EPOCH: Final = datetime(2024, 1, 1)  # noqa: DTZ001 - a meter's clock has no zone; energies start to count here
HOUR: Final = timedelta(hours=1)
MONTHS: Final = 12  # historical values kept
PHASES: Final = (1, 2, 3)
_SHARES: Final = (0.42, 0.33, 0.25)  # of the load by phase
_TARIFF_SHARES: Final = (0.55, 0.30, 0.15)
STATUS_ALL_WELL: Final = 1 << 37 | 1 << 38  # F.F.0: a bit of 1 is a good battery

GAP_FROM: Final = timedelta(hours=5)  # before now: the power failure of the fault "gap"
GAP_TO: Final = timedelta(hours=3)
DST_BEFORE: Final = timedelta(hours=6)  # before now: the change of the fault "dst"
HEADER_EVERY: Final = 4  # rows, with the fault "repeat-header"


# --------------------------------------------------------------------------------------------------------------- load


@dataclass(frozen=True, slots=True)
class Phase:
    """Voltage in V, current in A, active power in kW, lag of the current in degrees (inductive is positive)."""

    volts: float
    amps: float
    kw: float
    lag: float

    @property
    def factor(self) -> float:
        return math.cos(math.radians(self.lag))


class Load:
    """A three-phase load as a smooth function of time, the same for the same seed; ``base_kw`` is its mean."""

    def __init__(self, seed: int, base_kw: float) -> None:
        chance = random.Random(seed)
        self._base = base_kw
        self._turn = [chance.uniform(0, math.tau) for _ in range(4)]
        self._start_kwh = chance.uniform(1000, 60000)

    def kw(self, at: datetime) -> float:
        hours = (at - EPOCH) / HOUR
        day, short = math.tau / 24, math.tau / 1.7
        return self._base * (
            1 + 0.5 * math.sin(day * hours + self._turn[0]) + 0.25 * math.sin(short * hours + self._turn[1])
        )

    def kwh(self, at: datetime) -> float:
        """The integral of ``kw``."""
        hours = (at - EPOCH) / HOUR
        swings = sum(
            share / rate * (math.cos(turn) - math.cos(rate * hours + turn))
            for share, rate, turn in ((0.5, math.tau / 24, self._turn[0]), (0.25, math.tau / 1.7, self._turn[1]))
        )
        return self._start_kwh + self._base * (hours + swings)

    def phases(self, at: datetime, *, is_supplied: bool = True) -> tuple[Phase, Phase, Phase]:
        hours = (at - EPOCH) / HOUR
        total = self.kw(at) if is_supplied else 0.0

        def phase(number: int) -> Phase:
            turn = self._turn[number]
            volts = 230 + 2.5 * math.sin(math.tau * hours / 0.7 + turn) + number
            lag = 18 + 9 * math.sin(math.tau * hours / 5 + turn)
            kw = total * _SHARES[number - 1]
            return Phase(volts, kw * 1000 / volts / math.cos(math.radians(lag)), kw, lag)

        return phase(1), phase(2), phase(3)


# --------------------------------------------------------------------------------------------------------------- types


class ClockForm(StrEnum):
    """How 0.9.1 and 0.9.2 are written."""

    DASHED = "hh:mm:ss and yy-mm-dd"
    COMPACT = "hhmmss and yymmdd"
    SEASON = "season in front of the compact form"


class Mode(StrEnum):
    """What the meter does; the codec's ``Mode`` is what an identification tells of it."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"


class Refusal(StrEnum):
    """What the meter says to a wrong password."""

    NAK = "NAK"
    ERROR = "error message"
    BREAK = "break"


Rows = dict[str, str]
"""Address -> bracket groups, in the order of the readout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterType:
    """One row of ``METERS``.

    ``baud``: the rate of the sign-on, and of everything where ``is_fixed_rate``. ``answer_baud``: the meter answers the
    sign-on at this rate at once. ``wake_nuls``: NULs it wants before the sign-on. ``kinds``: the digits of R and W it
    knows. ``writable``: address -> form of the value. ``packets``: option Y -> what the readout of it holds.
    ``is_open``: reading needs no password.
    """

    title: str
    identification: str
    serial: str
    mode: Mode = Mode.C
    baud: int = 300
    is_fixed_rate: bool = False
    answer_baud: int = 0
    wake_nuls: int = 0
    is_framed: bool = True
    clock_form: ClockForm = ClockForm.DASHED
    rows: Callable[[MeterData], Rows]
    packets: Mapping[str, Callable[[MeterData], Rows]] = field(default_factory=dict)
    kinds: str = ""
    is_open: bool = True
    refusal: Refusal = Refusal.NAK
    writable: Mapping[str, str] = field(default_factory=dict)
    answers_with_address: bool = True
    breaks_back: bool = False  # answers a break with one of its own
    profiles: tuple[str, ...] = ()
    is_national: bool = False  # Turkish forms of profiles and dates
    status_digits: int = 2
    base_kw: float = 1.2

    @property
    def head(self) -> iec.Identification:
        return iec.parse_identification(self.identification)

    @property
    def has_programming(self) -> bool:
        return bool(self.kinds)


class Refused(Exception):
    """The meter cannot do that; the text is that of its error message, without brackets."""


@dataclass(frozen=True, slots=True)
class _Period:
    """End of a period: true time (without summer time), what the clock shows then, season, status bits."""

    instant: datetime
    wall: datetime
    season: int
    status: int


# --------------------------------------------------------------------------------------------------------------- data


class MeterData:
    """One meter. ``now`` gives the true local time; the meter's clock runs ``offset`` before it.

    ``profile_faults`` holds names out of gap, dst, repeat-header. ``events`` is what P.98 reports: true time, status,
    and the data sets kept with it. ``executed``: what E2 was asked for.
    """

    def __init__(
        self,
        kind: MeterType,
        *,
        now: Callable[[], datetime],
        seed: int = 0,
        serial: str = "",
        offset: timedelta = timedelta(0),
        season: int = 0,
        profile_days: int = 10,
        period_min: int = 15,
    ) -> None:
        self.kind = kind
        self.serial = serial or kind.serial
        self.offset = offset
        self.season = season
        self.profile_faults: set[str] = set()
        self.settings: dict[str, str] = {}
        self.status_bits = STATUS_ALL_WELL
        self.executed: list[str] = []
        self.load = Load(seed, kind.base_kw)
        self._true_now = now
        self._period = timedelta(minutes=period_min)
        self._days = profile_days
        self._off_since: datetime | None = None
        self._unused_kwh = 0.0  # not drawn while the supply was off
        self.events: list[tuple[datetime, int, dict[str, str]]] = [
            (now() - timedelta(days=3, hours=2), 0x80, {}),
            (now() - timedelta(days=3, hours=1), 0x40, {}),
        ]

    # -- clock

    @property
    def now(self) -> datetime:
        """The meter's clock, whole seconds."""
        return (self._true_now() + self.offset).replace(microsecond=0)

    def clock_rows(self) -> Rows:
        at = self.now
        season = f"{self.season}"
        match self.kind.clock_form:
            case ClockForm.DASHED:
                return {"0.9.1": f"({at:%H:%M:%S})", "0.9.2": f"({at:%y-%m-%d})"}
            case ClockForm.COMPACT:
                return {"0.9.1": f"({at:%H%M%S})", "0.9.2": f"({at:%y%m%d})"}
            case ClockForm.SEASON:
                return {"0.9.1": f"({season}{at:%H%M%S})", "0.9.2": f"({season}{at:%y%m%d})"}

    def _set_clock(self, address: str, text: str) -> None:
        old = self.now
        if self.kind.clock_form is ClockForm.SEASON:
            self.season, text = int(text[0]), text[1:]
        digits = re.sub(r"[-:]", "", text)
        first, second, third = (int(digits[place : place + 2]) for place in (0, 2, 4))
        try:
            if address == "0.9.1":
                new = datetime.combine(old.date(), time(first, second, third))
            else:
                new = old.replace(year=2000 + first, month=second, day=third)
        except ValueError:
            raise Refused("ER02") from None
        self.offset += new - (self._true_now() + self.offset)
        self.events.append((self._true_now(), 0x20, {address: self._clock_text(address, old)}))

    def _clock_text(self, address: str, at: datetime) -> str:
        return f"{at:%H%M%S}" if address == "0.9.1" else f"{at:%y%m%d}"

    # -- supply

    @property
    def is_supplied(self) -> bool:
        return self._off_since is None

    def _switch(self, *, on: bool) -> None:
        at = self._true_now()
        if on and self._off_since is not None:
            self._unused_kwh += self.load.kwh(at) - self.load.kwh(self._off_since)
            self._off_since = None
        elif not on and self._off_since is None:
            self._off_since = at

    def kwh(self, at: datetime | None = None) -> float:
        """Energy drawn until the true time ``at`` (None: now)."""
        moment = at or self._true_now()
        if self._off_since is not None:
            moment = min(moment, self._off_since)
        return max(0.0, self.load.kwh(moment) - self._unused_kwh)

    def phases(self) -> tuple[Phase, Phase, Phase]:
        return self.load.phases(self._true_now(), is_supplied=self.is_supplied)

    # -- readout and registers

    def readout(self, option: str = "0") -> Rows:
        """The rows of the readout selected by option Y; settings that were written are in it."""
        rows = self.kind.packets.get(option, self.kind.rows)(self)
        return {address: self.settings.get(address, groups) for address, groups in rows.items()}

    def data_block(self, option: str = "0") -> str:
        """The text between STX and ETX, with its closing ``!``."""
        lines = "".join(f"{address}{groups}\r\n" for address, groups in self.readout(option).items())
        return f"{lines}!\r\n"

    def read(self, address: str) -> str:
        """The bracket groups of a register. Raises Refused."""
        rows = dict(self.kind.rows(self)) | self.settings
        for option in self.kind.packets:
            rows = self.kind.packets[option](self) | rows
        if address not in rows:
            raise Refused("ER01")
        return rows[address]

    def write(self, address: str, text: str) -> None:
        """Set a register. Raises Refused."""
        form = self.kind.writable.get(address)
        if form is None:
            raise Refused("ER01")
        if re.fullmatch(form, text) is None:
            raise Refused("ER02")
        if address in ("0.9.1", "0.9.2"):
            self._set_clock(address, text)
            return
        if address == "96.3.10":
            self._switch(on=text == "0")
        if address != "96.96":  # the password is not kept where it could be read
            self.settings[address] = f"({text})"

    # -- load profile and events

    def profile(self, address: str, operand: str, columns: str = "") -> str:
        """Answer to P.01 and the like: ``operand`` is ``start;end``. Raises Refused."""
        start, end = self._range(operand)
        if address == "P.98":
            return self._event_log(start, end)
        if address not in self.kind.profiles:
            raise Refused("ER01")
        periods = list(self._periods(start, end))
        if self.kind.is_national:
            return self._national_profile(address, periods, columns)
        if not periods:
            raise Refused("ER21")  # Choice: what a meter says to a range without data is not known
        return self._vdew_profile(address, periods)

    def _range(self, operand: str) -> tuple[datetime | None, datetime | None]:
        first, separator, second = operand.partition(";")
        if not separator:
            raise Refused("ER02")
        found: list[datetime | None] = []
        for text in (first, second):
            stamp = iec.parse_stamp(text) if text else None
            if text and stamp is None:
                raise Refused("ER02")
            found.append(None if stamp is None else stamp.at)
        return found[0], found[1]

    def _periods(self, start: datetime | None, end: datetime | None) -> Iterator[_Period]:
        """The periods whose end the meter's clock shows between ``start`` and ``end``, both included."""
        now = self.now
        last = EPOCH + (now - EPOCH) // self._period * self._period
        instant = last - timedelta(days=self._days)
        if start is not None and start - HOUR > instant:
            instant = EPOCH + (start - HOUR - EPOCH) // self._period * self._period
        gap_from, gap_to = (self._on_grid(now - ago) for ago in (GAP_FROM, GAP_TO))
        change = (now - DST_BEFORE).replace(minute=0, second=0)
        while instant <= last:
            wall, season, status = instant, self.season, 0
            if "dst" in self.profile_faults:
                season = int(instant < change)
                wall = instant + HOUR * season
            if "gap" in self.profile_faults:
                status |= 0x80 if instant == gap_from else 0x40 if instant == gap_to else 0
            if season == 1:
                status |= 0x08
            is_lost = "gap" in self.profile_faults and gap_from < instant < gap_to
            if not is_lost and (start is None or wall >= start) and (end is None or wall <= end):
                yield _Period(instant, wall, season, status)
            instant += self._period

    def _on_grid(self, at: datetime) -> datetime:
        return EPOCH + (at - EPOCH) // self._period * self._period

    def _vdew_profile(self, address: str, periods: Sequence[_Period]) -> str:
        channels = VDEW_COLUMNS[: 1 if address == "P.02" else None]
        named = "".join(f"({name})({unit})" for name, unit in channels)
        minutes = self._period // timedelta(minutes=1)
        lines: list[str] = []
        before: _Period | None = None
        since = 0
        for period in periods:
            is_next = (
                before is not None
                and (before.season, before.status) == (period.season, period.status)
                and period.wall - before.wall == self._period
                and not ("repeat-header" in self.profile_faults and since >= HEADER_EVERY)
            )
            if not is_next:
                status = f"{period.status:0{self.kind.status_digits}X}"
                stamp = iec.format_vdew(period.wall, period.season)
                lines.append(f"{address}({stamp})({status})({minutes})({len(channels)}){named}\r\n")
                since = 0
            mean = self._mean_kw(period)
            values = (mean, 0.0, mean * 0.31, mean * 0.02)[: len(channels)]
            lines.append("".join(f"({value:.5f})" for value in values) + "\r\n")
            before, since = period, since + 1
        return "".join(lines)

    def _mean_kw(self, period: _Period) -> float:
        return (self.load.kwh(period.instant) - self.load.kwh(period.instant - self._period)) * (HOUR / self._period)

    def _national_profile(self, address: str, periods: Sequence[_Period], columns: str) -> str:
        wanted = _columns_of(address, columns, has_header=self.kind.identification.find("<3>") > 0)
        lines: list[str] = []
        if "<3>" in self.kind.identification:
            lines.append("LPCH:" + ",".join(f"{name}*{unit}" for name, unit in wanted) + "\r\n")
        for period in periods:
            values = ",".join(self._national_value(name, period) for name, _ in wanted)
            lines.append(f"({iec.format_mass(period.wall)})({values})\r\n")
        return "".join(lines) or "()"  # Choice: what a meter without a header says to a range without data

    def _national_value(self, name: str, period: _Period) -> str:
        total = self.load.kwh(period.instant)
        match name:
            case "1.8.0":
                return f"{total:010.3f}"
            case "1.8.1" | "1.8.2" | "1.8.3":
                return f"{total * _TARIFF_SHARES[int(name[-1]) - 1]:010.3f}"
            case "5.8.0":
                return f"{total * 0.31:010.3f}"
            case "8.8.0":
                return f"{total * 0.02:010.3f}"
            case "1.6.0":
                return f"{self._mean_kw(period):07.3f}"
            case _:  # voltages, currents, frequency, power factor of a moment
                one = self.load.phases(period.instant)[{"3": 0, "5": 1, "7": 2}.get(name[0], 0)]
                return {"2": f"{one.volts:05.1f}", "1": f"{one.amps:06.2f}", "4": "50.0", "3": f"{one.factor:.2f}"}[
                    name[1]
                ]

    def _event_log(self, start: datetime | None, end: datetime | None) -> str:
        """VDEW P.98: one line per event, oldest first."""
        if not self.kind.kinds.count("5"):
            raise Refused("ER01")
        lines = []
        for at, status, kept in self.events:
            shown = (at + self.offset).replace(microsecond=0)
            if (start is None or shown >= start) and (end is None or shown <= end):
                named = "".join(f"({address})()" for address in kept) + "".join(f"({old})" for old in kept.values())
                bits = f"{status:0{self.kind.status_digits}X}"
                lines.append(f"P.98({iec.format_vdew(shown, self.season)})({bits})()({len(kept)}){named}\r\n")
        if not lines:
            raise Refused("ER21")
        return "".join(lines)


VDEW_COLUMNS: Final = (("1.5.0", "kW"), ("2.5.0", "kW"), ("5.5.0", "kvar"), ("8.5.0", "kvar"))
NATIONAL_COLUMNS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "P.01": (("1.8.0", "kWh"), ("5.8.0", "kvarh"), ("8.8.0", "kvarh"), ("1.6.0", "kW")),
    "P.02": (("1.8.1", "kWh"), ("1.8.2", "kWh"), ("1.8.3", "kWh")),
    "P.03": (
        ("32.7.0", "V"), ("52.7.0", "V"), ("72.7.0", "V"), ("31.7.0", "A"), ("51.7.0", "A"), ("71.7.0", "A"),
        ("14.7.0", "Hz"), ("33.7.0", ""),
    ),
}  # fmt: skip


def _columns_of(address: str, selected: str, *, has_header: bool) -> tuple[tuple[str, str], ...]:
    """Columns of a Turkish answer. ``selected``: ``Y101,Y203``, profile and number of a column (generation 3).

    Raises:
        Refused: there is no such column.
    """
    if address != "P.12":
        return NATIONAL_COLUMNS[address]
    if not selected:
        return NATIONAL_COLUMNS["P.01"] + NATIONAL_COLUMNS["P.02"]
    found = []
    for name in selected.split(","):
        place = re.fullmatch(r"Y([12])([0-9]{2})", name)
        listed = NATIONAL_COLUMNS[f"P.0{place[1]}"] if place else ()
        if place is None or not 1 <= int(place[2]) <= len(listed) or not has_header:
            raise Refused("ER02")
        found.append(listed[int(place[2]) - 1])
    return tuple(found)


# --------------------------------------------------------------------------------------------------------------- rows


def _energies(data: MeterData, code: str, share: float, unit: str, form: str, tariffs: int = 0) -> Rows:
    """``code``.0 and its tariffs, which add up."""
    total = round(data.kwh() * share * 1000)
    parts = [int(total * part) for part in _TARIFF_SHARES[1:tariffs]]
    split = [total - sum(parts), *parts][:tariffs]
    rows = {f"{code}.0": f"({total / 1000:{form}}*{unit})"}
    rows |= {f"{code}.{number}": f"({value / 1000:{form}}*{unit})" for number, value in enumerate(split, 1)}
    return rows


def _history(data: MeterData, code: str, share: float, unit: str) -> Rows:
    """Values at the ends of the last months, ``*1`` the youngest."""
    rows: Rows = {}
    at = data.now
    for number in range(1, MONTHS + 1):
        at = at.replace(day=1, hour=0, minute=0, second=0) - timedelta(seconds=1)
        rows[f"{code}*{number}"] = f"({data.load.kwh(at) * share:010.3f}*{unit})"
    return rows


def _instant(data: MeterData, end: str = ".0") -> Rows:
    """Voltages, currents, power factors, powers and frequency; ``end`` is what follows D in the address."""
    phases = data.phases()
    rows: Rows = {}
    for at, one in enumerate(phases):
        rows[f"{32 + 20 * at}.7{end}"] = f"({one.volts:05.1f}*V)"
        rows[f"{31 + 20 * at}.7{end}"] = f"({one.amps:06.2f}*A)"
        rows[f"{33 + 20 * at}.7{end}"] = f"({one.factor:.2f})"
        rows[f"{21 + 20 * at}.7{end}"] = f"({one.kw:06.3f}*kW)"
    rows[f"16.7{end}"] = f"({sum(one.kw for one in phases):06.3f}*kW)"
    rows[f"14.7{end}"] = "(50.0*Hz)"
    return rows


def _angles(data: MeterData) -> Rows:
    """81.7.xy: lags of the voltages behind U1, and of each current behind its own voltage."""
    rows = {"81.7.1": "(120*deg)", "81.7.2": "(240*deg)"}
    rows |= {f"81.7.{at}{at + 4}" if at else "81.7.4": f"({one.lag:.0f}*deg)" for at, one in enumerate(data.phases())}
    return rows


def _landis(data: MeterData) -> Rows:
    phases = data.phases()
    rows = {"F.F": "(00)", "0.0": f"({'120858':>16})", "C.1.0": f"({data.serial})", "C.1.1": "(        )"}
    rows |= data.clock_rows()
    rows |= _energies(data, "1.8", 1, "kWh", "010.3f", 2)
    rows |= _energies(data, "2.8", 0.001, "kWh", "010.3f", 2)
    rows |= _energies(data, "15.8", 1.001, "kWh", "010.3f")
    rows["C.7.0"] = "(0008)"
    rows |= {f"{32 + 20 * at}.7": f"({one.volts:.0f}*V)" for at, one in enumerate(phases)}
    rows |= {f"{31 + 20 * at}.7": f"({one.amps:06.2f}*A)" for at, one in enumerate(phases)}
    return rows | {"82.8.1": "(0000)", "82.8.2": "(0000)", "0.2.0": "(M26)", "C.5.0": "(0401)"}


def _iskra(data: MeterData) -> Rows:
    rows = {"0.0.0": f"({data.serial})", "C.1.0": f"({data.serial})", "0.2.0": "(1.02)"}
    rows |= data.clock_rows()
    rows |= _energies(data, "1.8", 1, "kWh", "010.3f", 2)
    rows |= _energies(data, "2.8", 0.2, "kWh", "010.3f")
    return rows | {"F.F.0": "(0000000)", "C.7.0": "(00012)"}


def _emh(data: MeterData) -> Rows:
    rows = {"F.F": "(00000000)", "0.0.0": f"({data.serial})"} | data.clock_rows()
    rows |= {"0.1.0": "(26)", "0.1.2*26": f"({_month_start(data, 1)})"}
    rows |= _emh_registers(data)
    rows |= {f"{address}&{number:02d}": groups for address, number, groups in _emh_history(data)}
    rows |= {"13.25": f"({data.phases()[0].factor:.2f}*P/S)", "C.7.2": "(0003)"}
    return rows


def _emh_registers(data: MeterData) -> Rows:
    peak = data.load.kw(data.now) * 1.6
    rows = {"1.6.1": f"({peak:.3f}*kW)({_month_start(data, 0)[:7]}181500)", "1.4.0": f"({peak * 0.6:.3f}*kW)"}
    rows |= _energies(data, "1.8", 1, "kWh", ".3f", 2)
    rows |= _energies(data, "2.8", 0.01, "kWh", ".3f", 2)
    rows |= _energies(data, "5.8", 0.31, "kvarh", ".3f")
    return rows | _energies(data, "8.8", 0.02, "kvarh", ".3f")


def _emh_history(data: MeterData) -> Iterator[tuple[str, int, str]]:
    for months in (1, 2):
        yield "1.8.1", 27 - months, f"({data.load.kwh(data.now - timedelta(days=30 * months)) * 0.7:.3f}*kWh)"


def _emh_instant(data: MeterData) -> Rows:
    return {"0.0.0": f"({data.serial})"} | _instant(data, "")


def _emh_identity(data: MeterData) -> Rows:
    return {"0.0.0": f"({data.serial})", "F.F": "(00000000)"} | data.clock_rows()


def _month_start(data: MeterData, months_ago: int) -> str:
    at = data.now.replace(day=1, hour=0, minute=0, second=0)
    for _ in range(months_ago):
        at = (at - HOUR).replace(day=1, hour=0)
    return iec.format_vdew(at, data.season)


def _turkish_head(data: MeterData) -> Rows:
    return {"0.0.0": f"({data.serial})"} | data.clock_rows()


def _turkish_short(data: MeterData) -> Rows:
    at = data.now
    rows = _turkish_head(data) | {"0.9.5": f"({at.isoweekday()})", "96.92.0": "(ETD..1023)"}
    rows |= {"0.2.0": "(V01.002)", "0.2.1": "(26041940)"}
    rows |= _energies(data, "1.8", 1, "kWh", "010.3f", 3) | {"1.8.4": "(000000.000*kWh)"}
    rows |= _energies(data, "5.8", 0.31, "kvarh", "010.3f") | _energies(data, "8.8", 0.02, "kvarh", "010.3f")
    rows["1.6.0"] = f"({data.load.kw(at) * 1.6:07.3f}*kW)({at:%y-%m}-01,18:15)"
    rows |= {"96.6.1": "(1)", "96.20.5": "(00)", "96.20.0": "(01)"}
    rows["96.20.1"] = f"({_dashed(at - 49 * HOUR)};{_dashed(at - 48 * HOUR)})"
    rows["96.20.1*1"] = "(00-00-00,00:00;00-00-00,00:00)"
    rows |= {f"96.5{number}": "(00000600170022009999999999999999)" for number in range(3)}
    rows |= {f"96.6{number}": "(31230000)" for number in range(3)}
    rows |= {"0.8.0": "(15*min)", "0.8.4": "(15*min)", "96.2.2": "(25-11-17,13:12)", "96.90.0": "(0)"}
    rows["96.90.1"] = "(+01:00,26-03-29,03:00;26-10-25,04:00)"
    rows["96.3.10"] = "(0)" if data.is_supplied else "(1)"
    rows |= {"F.F.0": f"({data.status_bits:064b})", "F.F.1": f"({0:064b})"}
    return rows


def _dashed(at: datetime) -> str:
    return f"{at:%y-%m-%d,%H:%M:%S}"


def _turkish_history(data: MeterData) -> Rows:
    rows = _turkish_head(data) | _history(data, "1.8.0", 1, "kWh")
    for number, share in enumerate(_TARIFF_SHARES, 1):
        rows |= _history(data, f"1.8.{number}", share, "kWh")
    return rows | _history(data, "5.8.0", 0.31, "kvarh")


def _turkish_long(data: MeterData) -> Rows:
    rows = _turkish_short(data) | _instant(data) | _turkish_history(data)
    for number, (columns, _) in enumerate(zip(NATIONAL_COLUMNS.values(), PHASES, strict=True), 1):
        rows[f"97.{number}.0"] = "(" + ",".join(f"{name}*{unit}".rstrip("*") for name, unit in columns) + ")"
    return rows


def _turkish_warnings(data: MeterData) -> Rows:
    rows = _turkish_head(data) | {"F.F.0": f"({data.status_bits:064b})", "F.F.1": f"({0:064b})"}
    at = data.now
    return rows | {f"96.30.{number}": f"({_dashed(at - number * 30 * HOUR)})" for number in range(1, 6)}


def _turkish_outages(data: MeterData) -> Rows:
    rows = _turkish_head(data) | {"96.7.0": "(0007)", "96.7.1": "(0002)", "96.7.2": "(0003)", "96.7.3": "(0002)"}
    at = data.now
    return rows | {
        f"96.77.0*{number}": f"({_dashed(at - number * 24 * HOUR)};{_dashed(at - (number * 24 - 1) * HOUR)})"
        for number in range(1, 8)
    }


def _turkish_quality(data: MeterData) -> Rows:
    return _turkish_head(data) | _instant(data)


def _simple(data: MeterData) -> Rows:
    return {"F.F": "(0000)", "0.0.0": f"({data.serial})", **_energies(data, "1.8", 1, "kWh", "010.2f", 2)}


def _pushed(data: MeterData) -> Rows:
    phases = data.phases()
    rows = {"1-0:0.0.0*255": f"({data.serial})", "1-0:1.8.0*255": f"({data.kwh():016.7f}*kWh)"}
    rows |= {f"1-0:{21 + 20 * at}.7.255*255": f"({one.kw * 1000:09.2f}*W)" for at, one in enumerate(phases)}
    rows["1-0:1.7.255*255"] = f"({sum(one.kw for one in phases) * 1000:09.2f}*W)"
    return rows | {"1-0:96.5.5*255": "(82)"}


def _hdlc_meter(data: MeterData) -> Rows:
    rows = {"F.F": "(00000000)", "0.0.0": f"({data.serial})"} | data.clock_rows() | {"0.1.0": "(19)"}
    rows |= _energies(data, "1.8", 1, "kWh", "09.2f", 2) | _energies(data, "5.8", 0.31, "kvarh", "09.2f")
    return rows | {"1.8.0*19": f"({data.load.kwh(data.now - timedelta(days=20)):09.2f}*kWh)"}


def _heat(data: MeterData) -> Rows:
    """Several data sets to a line, as heat meters write; the line is one row here."""
    mwh, m3 = data.kwh() / 1000, data.kwh() / 40
    power = data.load.kw(data.now)
    return {
        "6.8": f"({mwh:08.3f}*MWh)6.26({m3:08.2f}*m3)9.21({data.serial})",
        "6.26*01": f"({m3 * 0.9:08.2f}*m3)6.8*01({mwh * 0.9:08.3f}*MWh)",
        "F": f"(0)9.20({data.serial})6.35(60*m)",
        "6.6": f"({power:06.1f}*kW)6.33({power / 30:07.3f}*m3ph)9.4(077.6*C&069.0*C)",
        "6.8.1": "()6.8.2()6.36.1(2025-12-18)",
    }


def _three_phase(data: MeterData) -> Rows:
    rows = {"F.F.0": "(00000000)", "0.0.0": f"({data.serial})"} | data.clock_rows()
    rows |= _energies(data, "1.8", 1, "kWh", "010.3f", 2) | _energies(data, "2.8", 0.05, "kWh", "010.3f")
    return rows | _instant(data) | _angles(data)


_TIME: Final = r"[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
_DATE: Final = r"[0-9]{2}-[01][0-9]-[0-3][0-9]"
_DASHED_CLOCK: Final = {"0.9.1": _TIME, "0.9.2": _DATE}
_TURKISH_WRITES: Final[Mapping[str, str]] = {
    **_DASHED_CLOCK,
    "0.9.5": "[1-7]",
    "0.8.0": r"(5|10|15|30|60)\*min",
    "0.8.4": r"(5|10|15|30|60)\*min",
    **{f"96.5{number}": "[0-9]{32}" for number in range(3)},
    **{f"96.6{number}": "[0-9]{8}" for number in range(3)},
    "96.3.10": "[01]",
    "96.90.0": "[01]",
    "96.90.1": r"[+-][0-9:]{5},[0-9,:;-]{1,60}",
    "96.96": "[0-9]{8}",
}
_TURKISH_PACKETS: Final[Mapping[str, Callable[[MeterData], Rows]]] = {
    "0": _turkish_long,
    "6": _turkish_short,
    "7": _turkish_history,
    "8": _turkish_warnings,
    "9": _turkish_outages,
}

METERS: Final[Mapping[str, MeterType]] = {
    "landis": MeterType(
        title="Landis+Gyr E350: mode C, 4800 Bd",
        identification="/LGZ4ZMF100AC.M26",
        serial="13647123",
        rows=_landis,
        kinds="135",
        writable=_DASHED_CLOCK,
        profiles=("P.01",),
    ),
    "iskra": MeterType(
        title="Iskraemeco MT174: mode C, 9600 Bd, answers after 20 ms (small third letter)",
        identification="/ISk5MT174-0001",
        serial="35271944",
        clock_form=ClockForm.COMPACT,
        rows=_iskra,
        kinds="135",
        refusal=Refusal.BREAK,
        writable={"0.9.1": "[0-9]{6}", "0.9.2": "[0-9]{6}"},
        profiles=("P.01", "P.02"),
        breaks_back=True,
    ),
    "emh": MeterType(
        title="EMH LZQJ: mode C, VDEW load profile and event log, partial blocks, password for everything",
        identification=r"/EMH4\@01LZQJL0014F",
        serial="05296170",
        clock_form=ClockForm.SEASON,
        rows=_emh,
        packets={"1": _emh, "2": _emh_registers, "3": _emh_instant, "4": _emh_identity},
        kinds="13456",
        is_open=False,
        refusal=Refusal.ERROR,
        writable={"0.9.1": "[0-2][0-9]{6}", "0.9.2": "[0-2][0-9]{6}"},
        answers_with_address=False,
        profiles=("P.01", "P.02"),
        status_digits=8,
        base_kw=40,
    ),
    "turkish-3": MeterType(
        title="Turkish meter of generation 3: packets by option, R2 and W2, relay",
        identification="/MKS5<3>ADM(M600.2251)",
        serial="510095849",
        rows=_turkish_long,
        packets=_TURKISH_PACKETS,
        kinds="24",
        refusal=Refusal.ERROR,
        writable=_TURKISH_WRITES,
        profiles=("P.01", "P.02", "P.12"),
        is_national=True,
    ),
    "turkish-2": MeterType(
        title="Turkish meter of generation 2 on RS-485: 9600 Bd throughout",
        identification="/MKS6<2>ADM(M550.2251)",
        serial="510012300",
        baud=9600,
        is_fixed_rate=True,
        rows=_turkish_long,
        packets={**_TURKISH_PACKETS, "5": _turkish_quality},
        kinds="24",
        refusal=Refusal.NAK,
        writable=_TURKISH_WRITES,
        answers_with_address=False,
        profiles=("P.01", "P.02", "P.03"),
        is_national=True,
    ),
    "mode-a": MeterType(
        title="Mode A: 300 Bd throughout, readout without a block check",
        identification="/GMCZEM2289",
        serial="40017",
        mode=Mode.A,
        is_framed=False,
        rows=_simple,
    ),
    "mode-b": MeterType(
        title="Mode B: changes to 9600 Bd by itself",
        identification="/MIRE2301",
        serial="2301887",
        mode=Mode.B,
        rows=_simple,
    ),
    "mode-d": MeterType(
        title="EasyMeter Q3D, mode D: sends by itself at 9600 Bd, no block check",
        identification="/ESY5Q3DA1004 V3.02",
        serial="0273011003684",
        mode=Mode.D,
        baud=9600,
        is_fixed_rate=True,
        is_framed=False,
        rows=_pushed,
    ),
    "mode-e": MeterType(
        title="Landis+Gyr ZMD, mode E: readout as mode C, or HDLC after option 2",
        identification=r"/LGZ5\2ZMD3104407.B24",
        serial="95316176",
        mode=Mode.E,
        rows=_hdlc_meter,
        kinds="1",
        writable=_DASHED_CLOCK,
    ),
    "heat": MeterType(
        title="Heat meter UH50: NULs wake it, it answers at 2400 Bd",
        identification="/LUGCUH50",
        serial="71708961",
        mode=Mode.B,
        answer_baud=2400,
        wake_nuls=40,
        rows=_heat,
    ),
    "three-phase": MeterType(
        title="Three-phase meter with voltages, currents, power factors and angles (phasor diagram)",
        identification="/ISK5ME382-0013",
        serial="48210077",
        rows=_three_phase,
        kinds="15",
        writable=_DASHED_CLOCK,
        profiles=("P.01",),
        base_kw=6,
    ),
}
