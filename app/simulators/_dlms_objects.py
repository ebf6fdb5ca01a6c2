"""What the simulated DLMS meter holds: its load, clock, profiles, relay, and the COSEM objects that show them.

Source of the rules: ``shared/specs/iec62056-and-dlms.md`` B4. Where it says nothing, the choice made stands in a
comment beginning with "Choice:". Times are UTC; only what goes on the wire is local time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from app.simulators import _dlms_wire as wire
from app.simulators._dlms_wire import Datum
from app.simulators._http import SimClock

# results of a data access (B4) and of an action
HARDWARE_FAULT, TEMPORARY, DENIED, UNDEFINED = 1, 2, 3, 4
CLASS_INCONSISTENT, TYPE_UNMATCHED, SCOPE, NO_LONG_GET, NO_LONG_SET, OTHER = 9, 12, 13, 16, 18, 250
BLOCK_INVALID: Final = 19

W, VA, VAR, WH, VAH, VARH, A, V, HZ, NO_UNIT = 27, 28, 29, 30, 31, 32, 33, 35, 44, 255
DEGREE: Final = 8  # of a phase angle

PERIOD: Final = timedelta(minutes=15)
PROFILE_ENTRIES: Final = 5000
EVENT_ENTRIES: Final = 100
POWER_DOWN, POWER_UP, CLOCK_SET, DST_IN_FORCE = 0x80, 0x40, 0x20, 0x08  # status of a profile row (A8)
# Choice: numbers of events as European companion documents have them.
EVENT_POWER_DOWN, EVENT_POWER_UP, EVENT_CLOCK_FROM, EVENT_CLOCK_TO, EVENT_OFF, EVENT_ON = 1, 2, 4, 5, 62, 63
EVENT_LOG_CLEARED: Final = 255
EXPORT_WH: Final = 3120
CLOCK: Final = "0.0.1.0.0.255"
ASSOCIATION: Final = "0.0.40.0.0.255"
RELAY: Final = "0.0.96.3.10.255"
MESSAGE: Final = "0.0.96.13.0.255"
LOAD_PROFILE: Final = "1.0.99.1.0.255"
EVENT_LOG: Final = "0.0.99.98.0.255"
MAX_MESSAGE: Final = 4096
LONG_LIST_STEP: Final = 256  # further objects per value of D


class Refused(Exception):
    """The meter's "no": ``result`` as it goes on the wire."""

    def __init__(self, result: int) -> None:
        super().__init__(result)
        self.result = result


# -------------------------------------------------------------------------------------------------------------- objects

Get = Callable[[], bytes]
Set = Callable[[Datum], None]
Call = Callable[[Datum], "bytes | None"]
Select = Callable[[int, Datum], bytes]


@dataclass(slots=True)
class CosemObject:
    """One object. Attributes and methods by number; values as A-XDR. Attribute 1 is always there."""

    class_id: int
    name: str
    attributes: dict[int, Get]
    version: int = 0
    setters: dict[int, Set] = field(default_factory=dict)
    methods: dict[int, Call] = field(default_factory=dict)
    selectors: dict[int, Select] = field(default_factory=dict)

    def get(self, attribute: int) -> bytes:
        """Raises Refused."""
        if attribute == 1:
            return wire.octets(wire.logical_name(self.name))
        if attribute not in self.attributes:
            raise Refused(DENIED)
        return self.attributes[attribute]()

    def select(self, attribute: int, selector: int, parameters: Datum) -> bytes:
        """Raises Refused."""
        if attribute not in self.selectors:
            raise Refused(DENIED)
        return self.selectors[attribute](selector, parameters)

    def entry(self, *, may_write: bool) -> bytes:
        """Its row of an object list."""
        rights = []
        for number in sorted({1, *self.attributes, *self.setters}):
            mode = (number == 1 or number in self.attributes) + 2 * (may_write and number in self.setters)
            chosen = wire.array([wire.number(wire.INT8, 1), wire.number(wire.INT8, 2)])
            selectors = chosen if number in self.selectors else wire.NULL_DATA
            rights.append(wire.structure(wire.number(wire.INT8, number), wire.number(wire.ENUM, mode), selectors))
        calls = [
            wire.structure(wire.number(wire.INT8, number), wire.number(wire.ENUM, int(may_write)))
            for number in sorted(self.methods)
        ]
        return wire.structure(
            wire.number(wire.UINT16, self.class_id),
            wire.number(wire.UINT8, self.version),
            wire.octets(wire.logical_name(self.name)),
            wire.structure(wire.array(rights), wire.array(calls)),
        )


def constant(value: bytes) -> Get:
    return lambda: value


def scaler_unit(scaler: int, unit: int) -> bytes:
    return wire.structure(wire.number(wire.INT8, scaler), wire.number(wire.ENUM, unit))


# ----------------------------------------------------------------------------------------------------------------- load

DAY_H: Final = 24.0
PEAK_H: Final = 19.0  # of the day, UTC
SWING: Final = 0.6  # of the load over the day
SHARES: Final = (0.42, 0.33, 0.25)  # of the phases
EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)


class Load:
    """A household's power over the day and the energy that comes of it; both known at any time.

    ``interruptions``: (begin, end) without load; end None: it lasts.
    """

    def __init__(self, start: datetime, power_w: float) -> None:
        self.start = start
        self.power_w = power_w
        self.interruptions: list[tuple[datetime, datetime | None]] = []

    def is_off(self, at: datetime) -> bool:
        return any(begin <= at and (end is None or at < end) for begin, end in self.interruptions)

    def total_w(self, at: datetime) -> float:
        if self.is_off(at):
            return 0.0
        return self.power_w * (1 + SWING * math.cos(2 * math.pi * (_hours(at) - PEAK_H) / DAY_H))

    def energy_wh(self, at: datetime) -> float:
        """Since ``start``."""
        found = self._full_wh(self.start, at)
        for begin, end in self.interruptions:
            first, last = max(begin, self.start), min(end or at, at)
            if first < last:
                found -= self._full_wh(first, last)
        return found

    def _full_wh(self, begin: datetime, end: datetime) -> float:
        def integral(hours: float) -> float:
            return hours + SWING * DAY_H / (2 * math.pi) * math.sin(2 * math.pi * (hours - PEAK_H) / DAY_H)

        return self.power_w * (integral(_hours(end)) - integral(_hours(begin)))

    def voltage(self, at: datetime, phase: int) -> float:
        return 230.5 + 1.4 * math.sin(_seconds(at) / 41 + 2 * phase) - self.total_w(at) * SHARES[phase] / 1500

    def power_factor(self, at: datetime, phase: int) -> float:
        return 0.95 + 0.03 * math.sin(_seconds(at) / 97 + phase)

    def voltage_angle(self, at: datetime, phase: int) -> float:
        """Degrees to the voltage of L1."""
        return 120.0 * phase + 0.2 * math.sin(_seconds(at) / 31 + phase)

    def current_angle(self, at: datetime, phase: int) -> float:
        """Degrees to the voltage of its own phase."""
        return math.degrees(math.acos(self.power_factor(at, phase)))

    def active_w(self, at: datetime, phase: int) -> float:
        return self.total_w(at) * SHARES[phase] * (1 + 0.02 * math.sin(_seconds(at) / 7 + phase))

    def current(self, at: datetime, phase: int) -> float:
        return self.active_w(at, phase) / self.voltage(at, phase) / self.power_factor(at, phase)

    def reactive_var(self, at: datetime, phase: int) -> float:
        return self.active_w(at, phase) * math.tan(math.acos(self.power_factor(at, phase)))

    def frequency(self, at: datetime) -> float:
        return 50 + 0.02 * math.sin(_seconds(at) / 23)


def _hours(at: datetime) -> float:
    return (at - EPOCH).total_seconds() / 3600


def _seconds(at: datetime) -> float:
    return (at - EPOCH).total_seconds() % 86400


# ---------------------------------------------------------------------------------------------------------------- meter


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterConfig:
    """How a meter stands at the start.

    ``clock_offset_s``: the meter's clock minus the true time. ``profile_days``: how far its load profile goes back;
    a power failure of three hours stands in it two days before the start. ``power_w``: mean load.
    """

    serial: str = "70612345"
    zone: str = "Europe/Berlin"
    clock_offset_s: float = 0.0
    profile_days: int = 5
    power_w: float = 1400.0
    energy_kwh: int = 18234


class Meter:
    """The meter without its lines. ``is_deviation_inverted`` and ``leaves_out`` may be changed at any time."""

    def __init__(self, config: MeterConfig, clock: SimClock) -> None:
        self.config = config
        self.clock = clock
        self.zone = ZoneInfo(config.zone)
        now = clock.now
        first = _quarter(now - timedelta(days=config.profile_days))
        self.load = Load(first, config.power_w)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self.outage = (midnight - timedelta(days=2) + timedelta(hours=9, minutes=52), timedelta(hours=3, minutes=11))
        begin, end = self.outage[0], self.outage[0] + self.outage[1]
        self.load.interruptions.append((begin, end))
        self.is_on = True
        self.control_state = 1  # 0 disconnected, 1 connected, 2 ready for reconnection
        self.control_mode = 4
        self.message = b""
        self.is_deviation_inverted = False
        self.leaves_out = False  # rows of profiles leave out what is as before: null-data
        self.clock_sets: list[datetime] = []
        self.events: deque[tuple[datetime, int]] = deque(maxlen=EVENT_ENTRIES)
        self.events += [(begin, EVENT_POWER_DOWN), (end, EVENT_POWER_UP)]
        self.profile_since = first
        self.drift_s_per_day = 0.0
        self._offset_s = config.clock_offset_s
        self._drifting_since = 0.0  # simulated seconds since the start
        self.objects = {(item.class_id, item.name): item for item in self._make()}

    # -- clock

    @property
    def offset_s(self) -> float:
        """The meter's clock minus the true time."""
        return self._offset_s + (self.clock.elapsed - self._drifting_since) * self.drift_s_per_day / 86400

    def set_drift(self, seconds_per_day: float) -> None:
        """From now on; what has gathered stays."""
        self._offset_s, self._drifting_since = self.offset_s, self.clock.elapsed
        self.drift_s_per_day = seconds_per_day

    @property
    def now(self) -> datetime:
        """What its clock shows."""
        return self.clock.now + timedelta(seconds=self.offset_s)

    def stamp(self, at: datetime) -> bytes:
        """``at`` as the 12 octets of the meter's local time."""
        local = at.astimezone(self.zone)
        offset = local.utcoffset() or timedelta()
        minutes = round(offset.total_seconds() / 60)
        deviation = minutes if self.is_deviation_inverted else -minutes
        return wire.date_time(local.replace(tzinfo=None), deviation, is_summer=bool(local.dst()))

    def read_stamp(self, value: Datum) -> datetime:
        """A time the client sent; without deviation it is the meter's local time. Raises Refused."""
        if value.tag not in (wire.OCTETS, wire.DATE_TIME):
            raise Refused(TYPE_UNMATCHED)
        try:
            local, deviation = wire.read_date_time(value.value)
            if deviation == wire.UNSPECIFIED:
                return local.replace(tzinfo=self.zone).astimezone(UTC)
            return wire.as_utc(local, -deviation if self.is_deviation_inverted else deviation).replace(tzinfo=UTC)
        except (ValueError, OverflowError) as exc:
            raise Refused(OTHER) from exc

    def set_clock(self, at: datetime) -> None:
        """Let the clock show ``at`` now. Choice: it takes the years 2000 to 2099. Raises Refused."""
        if not 2000 <= at.year <= 2099:
            raise Refused(OTHER)
        before = self.now
        self._offset_s, self._drifting_since = (at - self.clock.now).total_seconds(), self.clock.elapsed
        self.clock_sets.append(self.clock.now)
        self.events += [(before, EVENT_CLOCK_FROM), (self.now, EVENT_CLOCK_TO)]

    # -- relay

    def switch(self, *, is_on: bool) -> None:
        """The remote disconnection and reconnection of class 70.

        Choice: with an odd control mode a reconnection makes the relay ready, and a button on the meter does the rest.
        """
        if is_on and self.control_mode % 2:
            self.control_state = 2
            return
        if is_on != self.is_on:
            now = self.clock.now
            if is_on:
                begin, _ = self.load.interruptions.pop()
                self.load.interruptions.append((begin, now))
            else:
                self.load.interruptions.append((now, None))
            self.events.append((self.now, EVENT_ON if is_on else EVENT_OFF))
        self.is_on = is_on
        self.control_state = int(is_on)

    # -- profiles

    def quarters(self) -> list[datetime]:
        """Ends of the periods in the load profile, oldest first.

        Choice: they are true quarter-hours, whatever the clock shows.
        """
        last = _quarter(self.clock.now)
        first = max(self.profile_since, last - PERIOD * (PROFILE_ENTRIES - 1))
        begin, end = self.outage[0], self.outage[0] + self.outage[1]
        number = (last - first) // PERIOD
        return [at for step in range(1, number + 1) if not begin <= (at := first + PERIOD * step) < end]

    def profile_row(self, at: datetime) -> tuple[bytes, ...]:
        """Time, status, import, export and reactive energy of the period that ends ``at``."""
        begin, end = self.outage[0], self.outage[0] + self.outage[1]
        status = DST_IN_FORCE if at.astimezone(self.zone).dst() else 0
        if at - PERIOD < end <= at and begin > self.profile_since:
            status |= POWER_DOWN | POWER_UP
        if any(at - PERIOD < moment <= at for moment in self.clock_sets):
            status |= CLOCK_SET
        return (
            wire.octets(self.stamp(at)),
            wire.number(wire.UINT8, status),
            wire.number(wire.UINT32, self.import_wh(at)),
            wire.number(wire.UINT32, EXPORT_WH),
            wire.number(wire.UINT32, self.reactive_varh(at)),
        )

    def import_wh(self, at: datetime) -> int:
        return self.config.energy_kwh * 1000 + int(self.load.energy_wh(at))

    def reactive_varh(self, at: datetime) -> int:
        return self.import_wh(at) // 3

    # -- objects

    def _make(self) -> Iterator[CosemObject]:
        yield from self._identity()
        yield from self._clock()
        yield from self._energies()
        yield from self._live()
        yield from self._maxima()
        yield from self._profiles()
        yield from self._control()

    def _identity(self) -> Iterator[CosemObject]:
        device = f"MWS{self.config.serial:0>13}"
        for name, value in (
            ("0.0.42.0.0.255", wire.octets(device.encode("ascii"))),
            ("0.0.96.1.0.255", wire.octets(self.config.serial.encode("ascii"))),
            ("0.0.96.1.1.255", wire.visible("METERWRIGHT SIM")),
            ("1.0.0.2.0.255", wire.octets(b"MWSIM 1.4.2")),
            ("1.0.0.2.8.255", wire.octets(bytes.fromhex("8C4F21A7"))),
            ("1.0.0.4.2.255", wire.number(wire.UINT16, 1)),
            ("1.0.0.4.3.255", wire.number(wire.UINT16, 1)),
            ("0.0.96.7.21.255", wire.number(wire.UINT16, 1)),
            ("0.0.97.97.0.255", wire.number(wire.UINT32, 0)),
        ):
            yield CosemObject(1, name, {2: constant(value)})
        yield CosemObject(
            17,
            "0.0.41.0.0.255",
            {2: constant(wire.array([wire.structure(wire.number(wire.UINT16, 1), wire.octets(device.encode()))]))},
        )

    def _clock(self) -> Iterator[CosemObject]:
        def begin(month: int, hour: int) -> Get:  # the last Sunday of the month
            return constant(wire.octets(bytes((0xFF, 0xFF, month, 0xFE, 7, hour, 0, 0, 0, 0x80, 0, 0xFF))))

        def normal() -> bytes:
            offset = datetime(2026, 1, 15, tzinfo=self.zone).utcoffset() or timedelta()
            return wire.number(wire.INT16, -round(offset.total_seconds() / 60))

        def summer() -> int:
            return wire.SUMMER_TIME if self.now.astimezone(self.zone).dst() else 0

        def shift(value: Datum) -> None:
            if value.tag != wire.INT16 or abs(value.value) > 900:
                raise Refused(TYPE_UNMATCHED if value.tag != wire.INT16 else OTHER)
            self.set_clock(self.now + timedelta(seconds=value.value))

        def round_to(step_s: int) -> Call:
            def adjust(value: Datum) -> None:
                shown = (self.now - EPOCH).total_seconds()
                self.set_clock(EPOCH + timedelta(seconds=round(shown / step_s) * step_s))

            return adjust

        yield CosemObject(
            8,
            CLOCK,
            {
                2: lambda: wire.octets(self.stamp(self.now)),
                3: normal,
                4: lambda: wire.number(wire.UINT8, summer()),
                5: begin(3, 2),
                6: begin(10, 3),
                7: constant(wire.number(wire.INT8, 60)),
                8: constant(wire.boolean(True)),
                9: constant(wire.number(wire.ENUM, 1)),
            },
            setters={2: lambda value: self.set_clock(self.read_stamp(value))},
            methods={1: round_to(900), 3: round_to(60), 6: shift},
        )

    def _register(self, name: str, unit: int, scaler: int, tag: int, value: Callable[[datetime], float]) -> CosemObject:
        return CosemObject(
            3,
            name,
            {
                2: lambda: wire.number(tag, round(value(self.clock.now) * 10**-scaler)),
                3: constant(scaler_unit(scaler, unit)),
            },
            methods={1: _refuse},
        )

    def _energies(self) -> Iterator[CosemObject]:
        def of(name: str, unit: int, value: Callable[[datetime], float]) -> CosemObject:
            return self._register(name, unit, 0, wire.UINT32, value)

        def part(share: float) -> Callable[[datetime], float]:
            return lambda at: int(self.import_wh(at) * share)

        yield of("1.0.1.8.0.255", WH, self.import_wh)
        yield of("1.0.1.8.1.255", WH, part(0.64))
        yield of("1.0.1.8.2.255", WH, lambda at: self.import_wh(at) - int(self.import_wh(at) * 0.64))
        for name in ("1.0.1.8.3.255", "1.0.1.8.4.255", "1.0.2.8.1.255", "1.0.2.8.2.255"):
            yield of(name, WH, lambda at: 0)
        yield of("1.0.2.8.0.255", WH, lambda at: EXPORT_WH)
        yield of("1.0.3.8.0.255", VARH, self.reactive_varh)
        yield of("1.0.4.8.0.255", VARH, lambda at: 1250)
        yield of("1.0.5.8.0.255", VARH, self.reactive_varh)
        for name in ("1.0.6.8.0.255", "1.0.7.8.0.255"):
            yield of(name, VARH, lambda at: 0)
        yield of("1.0.8.8.0.255", VARH, lambda at: 1250)
        yield self._register("1.0.9.8.0.255", VAH, 3, wire.UINT16, part(1.054))

    def _live(self) -> Iterator[CosemObject]:
        load = self.load
        phases = range(3)

        def active(at: datetime) -> float:
            return sum(load.active_w(at, phase) for phase in phases)

        def reactive(at: datetime) -> float:
            return sum(load.reactive_var(at, phase) for phase in phases)

        def of(phase: int, value: Callable[[datetime, int], float]) -> Callable[[datetime], float]:
            return lambda at: value(at, phase)

        def nothing(at: datetime) -> float:
            return 0.0

        yield self._register("1.0.1.7.0.255", W, 0, wire.UINT32, active)
        yield self._register("1.0.2.7.0.255", W, 0, wire.UINT32, nothing)
        yield self._register("1.0.3.7.0.255", VAR, 0, wire.UINT32, reactive)
        yield self._register("1.0.4.7.0.255", VAR, 0, wire.UINT32, nothing)
        yield self._register("1.0.9.7.0.255", VA, 1, wire.UINT16, lambda at: math.hypot(active(at), reactive(at)))
        yield self._register("1.0.16.7.0.255", W, 0, wire.INT32, active)
        yield self._register("1.0.14.7.0.255", HZ, -2, wire.UINT16, load.frequency)
        yield self._register(
            "1.0.13.7.0.255", NO_UNIT, -3, wire.INT16,
            lambda at: active(at) / math.hypot(active(at), reactive(at)) if active(at) else 1.0,
        )  # fmt: skip
        for phase in phases:
            first = 20 * phase
            yield self._register(f"1.0.{first + 21}.7.0.255", W, 0, wire.UINT32, of(phase, load.active_w))
            yield self._register(f"1.0.{first + 32}.7.0.255", V, -1, wire.UINT16, of(phase, load.voltage))
            yield self._register(f"1.0.{first + 31}.7.0.255", A, -2, wire.UINT16, of(phase, load.current))
            yield self._register(f"1.0.{first + 33}.7.0.255", NO_UNIT, -3, wire.INT16, of(phase, load.power_factor))
        yield self._register("1.0.91.7.0.255", A, -3, wire.UINT16, lambda at: 0.004)
        # Angles of the voltages to that of L1, of each current to its own voltage.
        for number, phase in ((1, 1), (2, 2)):
            yield self._register(f"1.0.81.7.{number}.255", DEGREE, -1, wire.UINT16, of(phase, load.voltage_angle))
        for number, phase in ((4, 0), (15, 1), (26, 2)):
            yield self._register(f"1.0.81.7.{number}.255", DEGREE, -1, wire.UINT16, of(phase, load.current_angle))

    def _maxima(self) -> Iterator[CosemObject]:
        def peak() -> datetime:  # yesterday's
            return self.clock.now.replace(hour=int(PEAK_H), minute=0, second=0, microsecond=0) - timedelta(days=1)

        def highest() -> bytes:
            return wire.number(wire.UINT32, round(self.load.power_w * (1 + SWING)))

        unit = constant(scaler_unit(0, W))
        yield CosemObject(
            4,
            "1.0.1.6.0.255",
            {2: highest, 3: unit, 4: constant(wire.number(wire.UINT8, 0)), 5: lambda: wire.octets(self.stamp(peak()))},
            methods={1: _refuse},
        )

        def average(at: datetime) -> bytes:
            return wire.number(wire.UINT32, round(self.load.total_w(at)))

        yield CosemObject(
            5,
            "1.0.1.4.0.255",
            {
                2: lambda: average(self.clock.now),
                3: lambda: average(_quarter(self.clock.now)),
                4: unit,
                5: constant(wire.number(wire.UINT8, 0)),
                6: lambda: wire.octets(self.stamp(_quarter(self.clock.now))),
                7: lambda: wire.octets(self.stamp(_quarter(self.clock.now))),
                8: constant(wire.number(wire.UINT32, int(PERIOD.total_seconds()))),
                9: constant(wire.number(wire.UINT16, 1)),
            },
            methods={1: _refuse, 2: _refuse},
        )

    def _profiles(self) -> Iterator[CosemObject]:
        yield CosemObject(1, "0.0.96.10.1.255", {2: lambda: self.profile_row(_quarter(self.clock.now))[1]})
        yield Profile(
            self,
            LOAD_PROFILE,
            columns=(
                (8, CLOCK),
                (1, "0.0.96.10.1.255"),
                (3, "1.0.1.8.0.255"),
                (3, "1.0.2.8.0.255"),
                (3, "1.0.3.8.0.255"),
            ),
            period_s=int(PERIOD.total_seconds()),
            capacity=PROFILE_ENTRIES,
            times=self.quarters,
            row=lambda at, _: self.profile_row(at),
            clear=self._clear_profile,
        ).make()
        yield CosemObject(
            1, "0.0.96.11.0.255", {2: lambda: wire.number(wire.UINT8, self.events[-1][1] if self.events else 0)}
        )
        yield Profile(
            self,
            EVENT_LOG,
            columns=((8, CLOCK), (1, "0.0.96.11.0.255")),
            period_s=0,
            capacity=EVENT_ENTRIES,
            times=lambda: [at for at, _ in self.events],
            row=lambda at, place: (wire.octets(self.stamp(at)), wire.number(wire.UINT8, self.events[place][1])),
            clear=self._clear_events,
        ).make()

    def _clear_profile(self) -> None:
        self.profile_since = _quarter(self.clock.now)

    def _clear_events(self) -> None:
        self.events.clear()
        self.events.append((self.now, EVENT_LOG_CLEARED))

    def _control(self) -> Iterator[CosemObject]:
        def mode(value: Datum) -> None:
            if value.tag != wire.ENUM:
                raise Refused(TYPE_UNMATCHED)
            if value.value > 6:
                raise Refused(SCOPE)
            self.control_mode = value.value

        yield CosemObject(
            70,
            RELAY,
            {
                2: lambda: wire.boolean(self.is_on),
                3: lambda: wire.number(wire.ENUM, self.control_state),
                4: lambda: wire.number(wire.ENUM, self.control_mode),
            },
            setters={4: mode},
            methods={1: lambda _: self.switch(is_on=False), 2: lambda _: self.switch(is_on=True)},
        )

        def message(value: Datum) -> None:
            if value.tag != wire.OCTETS:
                raise Refused(TYPE_UNMATCHED)
            if len(value.value) > MAX_MESSAGE:
                raise Refused(SCOPE)
            self.message = value.value

        yield CosemObject(1, MESSAGE, {2: lambda: wire.octets(self.message)}, setters={2: message})
        yield CosemObject(
            64,
            "0.0.43.0.0.255",
            {2: constant(wire.number(wire.ENUM, 0)), 3: constant(wire.number(wire.ENUM, 0))},
        )

    def further(self, number: int) -> Iterator[CosemObject]:
        """Data objects to make a list long."""
        for at in range(number):
            name = f"0.1.96.{100 + at // LONG_LIST_STEP}.{at % LONG_LIST_STEP}.255"
            yield CosemObject(1, name, {2: constant(wire.number(wire.UINT16, at))})


def _quarter(at: datetime) -> datetime:
    return EPOCH + (at - EPOCH) // PERIOD * PERIOD


def _refuse(value: Datum) -> None:
    """A method that is there and not allowed."""
    raise Refused(DENIED)


# ------------------------------------------------------------------------------------------------------------- profiles


class Profile:
    """A profile generic (class 7): ``times`` are the ends of its rows, ``row`` the values of one by time and place."""

    def __init__(
        self,
        meter: Meter,
        name: str,
        *,
        columns: Sequence[tuple[int, str]],
        period_s: int,
        capacity: int,
        times: Callable[[], list[datetime]],
        row: Callable[[datetime, int], tuple[bytes, ...]],
        clear: Callable[[], None],
    ) -> None:
        self._meter = meter
        self._name = name
        self._columns = columns
        self._period_s = period_s
        self._capacity = capacity
        self._times = times
        self._row = row
        self._clear = clear

    def make(self) -> CosemObject:
        """Its object."""
        columns = [
            wire.structure(
                wire.number(wire.UINT16, class_id),
                wire.octets(wire.logical_name(name)),
                wire.number(wire.INT8, 2),
                wire.number(wire.UINT16, 0),
            )
            for class_id, name in self._columns
        ]
        return CosemObject(
            7,
            self._name,
            {
                2: lambda: self._buffer(range(len(self._times())), range(len(self._columns))),
                3: constant(wire.array(columns)),
                4: constant(wire.number(wire.UINT32, self._period_s)),
                5: constant(wire.number(wire.ENUM, 1)),
                6: constant(columns[0]),
                7: lambda: wire.number(wire.UINT32, len(self._times())),
                8: constant(wire.number(wire.UINT32, self._capacity)),
            },
            version=1,
            methods={1: lambda _: self._clear(), 2: _refuse},
            selectors={2: self._select},
        )

    def _buffer(self, places: Sequence[int], columns: Sequence[int]) -> bytes:
        times = self._times()
        period = timedelta(seconds=self._period_s)
        rows = []
        before: tuple[bytes, ...] = ()
        for place in places:
            values = self._row(times[place], place)
            shown = values
            if before and self._meter.leaves_out:
                shown = tuple(
                    wire.NULL_DATA if value == old else value for value, old in zip(values, before, strict=True)
                )
                if period and times[place] - times[place - 1] == period:
                    shown = (wire.NULL_DATA, *shown[1:])
            rows.append(wire.structure(*(shown[column] for column in columns)))
            before = values
        return wire.array(rows)

    def _select(self, selector: int, parameters: Datum) -> bytes:
        try:
            if parameters.tag != wire.STRUCTURE or len(parameters.value) != 4:
                raise Refused(TYPE_UNMATCHED)
            if selector == 1:
                return self._by_range(*parameters.value)
            if selector == 2:
                return self._by_entry(*(item.value for item in parameters.value))
        except (TypeError, AttributeError, IndexError) as exc:
            raise Refused(TYPE_UNMATCHED) from exc
        raise Refused(OTHER)

    def _by_range(self, restricting: Datum, begin: Datum, end: Datum, selected: Datum) -> bytes:
        """Rows with begin <= time <= end; the restricting object has to be the clock."""
        class_id, name, *_ = restricting.value
        if (class_id.value, wire.dotted(name.value)) != (8, CLOCK):
            raise Refused(SCOPE)
        first, last = self._meter.read_stamp(begin), self._meter.read_stamp(end)
        columns = [self._column(item) for item in selected.value] or range(len(self._columns))
        return self._buffer([place for place, at in enumerate(self._times()) if first <= at <= last], columns)

    def _column(self, wanted: Datum) -> int:
        class_id, name, *_ = wanted.value
        try:
            return self._columns.index((class_id.value, wire.dotted(name.value)))
        except ValueError:
            raise Refused(SCOPE) from None

    def _by_entry(self, first: int, last: int, first_column: int, last_column: int) -> bytes:
        """Numbers count from 1; last 0 is the last there is. Choice: what lies outside is left out."""
        rows, columns = len(self._times()), len(self._columns)
        return self._buffer(
            range(max(first, 1) - 1, min(last or rows, rows)),
            range(max(first_column, 1) - 1, min(last_column or columns, columns)),
        )
