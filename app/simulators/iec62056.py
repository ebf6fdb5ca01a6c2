"""An IEC 62056-21 meter on a pseudo terminal or TCP: modes A to E, programming mode, load profiles, faults on demand.

Source of the rules: specs/iec62056-and-dlms.md part A; what the meters hold stands in ``_iec62056_meters``. Where
nothing is said the choice made stands in a comment beginning with "Choice:". The meter's clock runs in real time;
``speed`` shortens everything else: octets on the wire, reactions, waits, the lock after wrong passwords.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias

from app.errors import ConfigError, LinkError
from app.model.line import LineFormat, add_parity, remove_parity
from app.protocols import iec62056_21 as iec
from app.simulators._http import FaultKind, SimClock, fault_help, is_name, is_seconds, read_extra, seconds
from app.simulators._iec62056_meters import METERS, MeterData, Mode, Refusal, Refused
from app.simulators._life import LineSimulator, Works
from app.simulators._pty import LINKS, DeviceLine, device_line
from app.simulators.catalog import Announce, SimOptions

OPTION_WAIT_S: Final = 2.0  # A3: after that the readout comes at the initial rate
REPEAT_WAIT_S: Final = 0.5  # Choice: how long a NAK or break may follow a readout
SILENCE_S: Final = 90.0  # A4: 60 to 120 s end programming mode
LOCK_S: Final = 6 * 3600.0  # A7
WRONG_PASSWORDS: Final = 3  # A7
GAP_S: Final = 1.5  # A4: an unfinished message is forgotten
AWAKE_S: Final = 5.0  # Choice: how long a meter takes a sign-on after its NULs
REACTION_MARGIN_MS: Final = 50  # on top of the least reaction time
SWITCH_S: Final = 1.5  # A4: the longest a client may take to change its rate, where time is not its own
MAX_REPEATS: Final = 3
MAX_BUFFER: Final = 4096
MESSAGES_KEPT: Final = 1000
DEFAULT_PASSWORD: Final = "12345678"  # of a simulated meter, no secret
PARITIES: Final = ("none", "even")
DATA_OPTIONS: Final = "056789"

# --------------------------------------------------------------------------------------------------------------- faults


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,3}", text) is not None


def _is_error(text: str) -> bool:
    return re.fullmatch(r"ER[A-Z0-9 ]{0,30}", text) is not None


METER_FAULTS: Final[Mapping[str, FaultKind]] = {
    # scope: sign-on, ident, option, readout, programming (states), or an address (1.8.0, P.01)
    "silent": FaultKind("does not answer"),
    "slow": FaultKind("answers so many seconds late (of the meter's time)", "1.45", is_seconds),
    "hang": FaultKind("takes nothing more from the line for so many seconds", "3600", is_seconds),
    "unplug": FaultKind("the cable is pulled in this state, and put back after so many seconds", "0.5", is_seconds),
    # octets
    "bad-bcc": FaultKind("the block check is wrong; #1: right when it is repeated"),
    "cut": FaultKind("ETX and block check are missing"),
    "no-end": FaultKind("the closing ! of the readout is missing"),
    "echo": FaultKind("the optical head reflects what it receives"),
    "noise": FaultKind("so many octets of rubbish before the answer", "8", _is_number),
    "nul": FaultKind("so many NULs before the answer and between its lines", "3", _is_number),
    "drop": FaultKind("falls silent in the middle of the answer"),
    "parity-8n1": FaultKind("answers with the parity bit where none is expected, and without where it is"),
    "wrong-baud": FaultKind("stays at the initial rate after the option select"),
    # programming mode
    "refuse-password": FaultKind("every password is wrong"),
    "locked": FaultKind("locked as after three wrong passwords", lasting=True),
    "error-er": FaultKind("answers every command with this error message", "ER07", _is_error),
    "nak-all": FaultKind("answers every command with NAK"),
    # load profile
    "gap": FaultKind("the profile lacks two hours of a power failure", lasting=True),
    "dst": FaultKind("the profile holds a change from summer to standard time", lasting=True),
    "repeat-header": FaultKind("the profile repeats its header every four rows", lasting=True),
}  # fmt: skip
FAULTS: Final[Mapping[str, str]] = fault_help(METER_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""
_PROFILE_FAULTS: Final = ("gap", "dst", "repeat-header")


# --------------------------------------------------------------------------------------------------------------- config


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterConfig:
    """How a meter stands at the start.

    ``baud``: rate of the sign-on, 0 for the model's. ``address``: what it listens to beside its serial number.
    ``parity`` "even": octets carry it in bit 7, as a port at 8N1 sees a meter at 7E1; "none": the port makes it.
    ``speed``: how many times faster than real time. ``drift_s``: meter minus computer. ``start``: local time without
    zone to begin at, None for now. ``every_s``: period of a mode D meter. ``reaction_ms``: 0 for the model's least one
    and a margin. ``least_wait_s``: no wait for the client is shorter in real seconds, however high the speed.
    """

    model: str = "landis"
    baud: int = 0
    serial: str = ""
    address: str = ""
    password: str = DEFAULT_PASSWORD
    parity: str = "none"
    speed: float = 1.0
    seed: int = 0
    drift_s: float = 0.0
    start: datetime | None = None
    profile_days: int = 10
    period_min: int = 15
    every_s: float = 10.0
    reaction_ms: int = 0
    least_wait_s: float = 1.0
    partial_chars: int = 256
    faults: tuple[str, ...] = ()


class State(StrEnum):
    """Where the meter stands; faults and tests name it."""

    SIGN_ON = "sign-on"  # waits for a request
    IDENT = "ident"  # sends its identification
    OPTION = "option"  # waits for the option select
    READOUT = "readout"
    PROGRAMMING = "programming"
    HDLC = "hdlc"


@dataclass(frozen=True, slots=True)
class SignOn:
    """A request: ``table`` is what stands after the slash, the address as sent."""

    table: str
    address: str
    octets: int


Heard: TypeAlias = SignOn | iec.Message | iec.Damaged
_REQUEST: Final = re.compile(rb"/([?1-4*@])([0-9A-Za-z ]{0,32})!\r\n")


class _Unplugged(Exception):
    """The fault struck: the cable is pulled, and put back after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


# --------------------------------------------------------------------------------------------------------------- meter


class Iec62056Meter(LineSimulator[DeviceLine]):
    """A meter on a line: ``async with Iec62056Meter(MeterConfig(), link="pty") as meter``, then open ``meter.address``.

    To look at: ``state``, ``data`` (values, clock, settings, events), ``heard`` (messages it understood),
    ``sign_ons``, ``readouts``, ``wrong_passwords``, ``breaks``, ``line``. Change them and the faults from the loop
    that runs the simulator. ``link`` is ``pty`` or ``tcp``.

    Raises:
        ConfigError: unknown model, parity or (on entering) fault or link. LinkError: (on entering) no port.
    """

    name = "iec62056"

    def __init__(
        self, config: MeterConfig | None = None, *, link: str = "pty", port: int = 0, path: str = ""
    ) -> None:
        self.config = config = config or MeterConfig()
        if config.model not in METERS:
            raise ConfigError("There is no such meter.", key="model", expected="one of " + ", ".join(METERS))
        if config.parity not in PARITIES:
            raise ConfigError("There is no such parity.", key="parity", expected=" or ".join(PARITIES))
        super().__init__(METER_FAULTS, config.faults)
        self.kind = METERS[config.model]
        self.clock = SimClock(time_scale=config.speed)
        began, start = datetime.now(UTC), config.start

        def now() -> datetime:
            if start is None:
                return datetime.now(UTC).astimezone().replace(tzinfo=None)
            return start + (datetime.now(UTC) - began)

        is_summer = start is None and bool(datetime.now(UTC).astimezone().dst())
        self.data = MeterData(
            self.kind,
            now=now,
            seed=config.seed,
            serial=config.serial,
            offset=timedelta(seconds=config.drift_s),
            season=int(is_summer),
            profile_days=config.profile_days,
            period_min=config.period_min,
        )
        self.state = State.SIGN_ON
        self.heard: deque[Heard] = deque(maxlen=MESSAGES_KEPT)
        self.heard_count = 0
        self.sign_ons = self.readouts = self.breaks = self.wrong_passwords = self.pushes = 0
        self._where = (link, port, path)
        self._initial = LineFormat(config.baud or self.kind.baud, 7, "E", 1)
        self._password = config.password
        self._chance = random.Random(config.seed)
        self._buffer = bytearray()
        self._nuls = 0
        self._awake_until = 0.0
        self._tries = 0
        self._locked_until = 0.0
        self._is_signed_in = False
        self._asked = ""  # address of the last command

    # -- life

    def _opening(self) -> AbstractAsyncContextManager[DeviceLine]:
        link, port, path = self._where
        return device_line(link, self._initial, port=port, path=path, speed=self.config.speed)

    def _works(self) -> Works:
        return {self.data.serial: self._run}

    @property
    def address(self) -> str:
        """What a client opens."""
        return self.line.address

    @property
    def is_locked(self) -> bool:
        """Writing is locked after three wrong passwords (A7)."""
        return self.faults.value("locked") is not None or self.clock.elapsed < self._locked_until

    # -- helpers

    def _faults_changed(self) -> None:
        self.data.profile_faults = {name for name in _PROFILE_FAULTS if self.faults.value(name) is not None}
        self.notify()

    def _enter(self, state: State) -> None:
        self.state = state
        self.notify()

    def _real(self, meter_s: float) -> float:
        """Real seconds of a wait for the client."""
        return max(meter_s / self.config.speed, self.config.least_wait_s)

    async def _run(self) -> None:
        while True:
            self._buffer.clear()
            try:
                await self._serve()
            except _Unplugged as cut:
                self.line.unplug()
                await asyncio.sleep(cut.seconds)
                await self.line.plug()
            except LinkError:  # somebody pulled the cable
                await self.line.wait_plugged()

    async def _serve(self) -> None:
        if self.kind.mode is Mode.D:
            await self._push()
            return
        request: SignOn | None = None
        while True:
            if request is None:
                await self._to(self._initial, State.SIGN_ON)
                heard = await self._next()
                if not isinstance(heard, SignOn):
                    continue
                request = heard
            request = await self._answer_sign_on(request) if await self._is_meant(request) else None

    async def _to(self, line_format: LineFormat, state: State) -> None:
        if self.line.format != line_format:
            await self.line.set_format(line_format)
        self._is_signed_in = False
        self._enter(state)

    # -- what comes

    async def _next(self, wait_s: float | None = None, *, expect_option: bool = False) -> Heard | None:
        """The next message; None after ``wait_s`` real seconds without one."""
        loop = asyncio.get_running_loop()
        end = None if wait_s is None else loop.time() + wait_s
        while True:
            heard = self._take(expect_option=expect_option)
            if heard is not None:
                self.heard.append(heard)
                self.heard_count += 1
                self.notify()
                return heard
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                return None
            gap = self._real(GAP_S) if self._buffer else None
            wait = min((one for one in (left, gap) if one is not None), default=None)
            try:
                self._received(await self.line.read(wait))
            except TimeoutError:
                self._buffer.clear()  # an unfinished message is forgotten
                self._nuls = 0

    def _received(self, data: bytes) -> None:
        if self.config.parity == "even":
            data, faults = remove_parity(data)
            if faults:
                self._buffer.clear()
                data = data[faults[-1] + 1 :]
        self._nuls += data.count(0)
        if self.kind.wake_nuls and self._nuls >= self.kind.wake_nuls:
            on_the_wire = self.line.format.seconds(self._nuls)
            self._awake_until = asyncio.get_running_loop().time() + on_the_wire + self._real(AWAKE_S)
        self._buffer += data
        del self._buffer[:-MAX_BUFFER]

    def _take(self, *, expect_option: bool) -> Heard | None:
        """Cut the first message out of what came."""
        octets = bytes(self._buffer)
        request = _REQUEST.search(octets)
        message = iec.take(octets, expect_option=expect_option)
        if request is not None and (message is None or request.start() < message.length):
            del self._buffer[: request.end()]
            table, address = request[1].decode("ascii"), request[2].decode("ascii")
            return SignOn(table, address, len(request[0]))
        if message is None:
            return None
        del self._buffer[: message.length]
        return message.message

    async def _is_meant(self, request: SignOn) -> bool:
        """Whether this meter answers: its address or none, awake, and no fault against it."""
        if request.table == "*":  # A8: wakes a modem
            return False
        if request.table == "@":
            await self._tell_serial()
            return False
        asked = request.address.strip().lstrip("0")
        own = {self.data.serial, self.config.address, f"{self.kind.head.manufacturer}{self.data.serial}"}
        if asked and asked not in {one.lstrip("0") for one in own if one}:
            return False
        if request.table != "?" and request.table not in self.kind.packets:
            return False
        if self.kind.wake_nuls:
            self._nuls = 0
            if asyncio.get_running_loop().time() >= self._awake_until:
                return False
        self.sign_ons += 1
        return not await self._is_struck(State.SIGN_ON)

    async def _tell_serial(self) -> None:
        """A8: serial collection on RS-485 of generation 3. Choice: the answer's form is not known."""
        if "<3>" in self.kind.identification:
            await self.clock.sleep(self._chance.uniform(0.05, 0.75))
            await self._send(f"/{self.kind.head.manufacturer}{self.data.serial}\r\n".encode("ascii"), State.SIGN_ON)

    async def _is_struck(self, state: State, *where: str) -> bool:
        """Faults that strike before an answer; True: there is none."""
        places = (state.value, *where)
        if (pause := self.faults.take("unplug", *places)) is not None:
            raise _Unplugged(float(pause))
        if (pause := self.faults.take("hang", *places)) is not None:
            await asyncio.sleep(float(pause))
            self.line.take_waiting()
            self._buffer.clear()
            return True
        return self.faults.take("silent", *places) is not None

    # -- what goes

    async def _react(self, octets: int, state: State, *where: str) -> None:
        """Wait until the client's message has ended on the wire, and for the reaction time (A4)."""
        least = self.config.reaction_ms or self.kind.head.min_reaction_ms + REACTION_MARGIN_MS
        late = self.faults.take("slow", state.value, *where)
        reaction = least / 1000 if late is None else float(late)
        await self.clock.sleep(self.line.format.seconds(octets) + reaction)

    async def _send(self, data: bytes, state: State, *where: str) -> None:
        """Send, with the faults of the wire. What came meanwhile is lost: the line is half-duplex."""
        places = (state.value, *where)
        if data[:1] == iec.STX and self.faults.take("bad-bcc", *places) is not None:
            data = data[:-1] + bytes((data[-1] ^ 0x15,))
        if data[:1] == iec.STX and self.faults.take("cut", *places) is not None:
            data = data[:-2]
        is_dropped = self.faults.take("drop", *places) is not None
        pause = self.faults.take("unplug", *places)
        if (count := self.faults.take("noise", *places)) is not None:
            data = bytes(self._chance.choice(_NOISE) for _ in range(int(count))) + data
        if (count := self.faults.take("nul", *places)) is not None:
            nuls = b"\0" * int(count)
            data = nuls + data.replace(b"\r\n", b"\r\n" + nuls)
        if is_dropped or pause is not None:
            data = data[: len(data) // 2]
        has_parity = (self.config.parity == "even") is not (self.faults.take("parity-8n1", *places) is not None)
        await self.line.write(add_parity(data) if has_parity else data)
        if pause is not None:
            raise _Unplugged(float(pause))
        self.line.take_waiting()

    async def _reflect(self, data: bytes, state: State) -> None:
        if self.faults.take("echo", state.value) is not None:
            await self.line.write(add_parity(data) if self.config.parity == "even" else data)

    def _readout_text(self, option: str) -> str:
        text = self.data.data_block(option)
        return text if self.faults.take("no-end", State.READOUT) is None else text.removesuffix("!\r\n")

    # -- sign-on and readout

    async def _answer_sign_on(self, request: SignOn) -> SignOn | None:
        """From the identification to the end of the session; the sign-on that ended it, if one did."""
        self._enter(State.IDENT)
        line = f"/{request.table}{request.address}!\r\n".encode("ascii")
        await self._reflect(line, State.SIGN_ON)
        await self._react(request.octets, State.SIGN_ON)
        if self.kind.answer_baud:
            await self._set_rate(replace(self._initial, baud=self.kind.answer_baud))
        await self._send(iec.encode(self.kind.head), State.IDENT)
        option = request.table if request.table in "1234" else "0"
        if self.kind.mode is Mode.B and not self.kind.answer_baud:
            await self._switch(self.kind.head.baud)
            await self._react(0, State.READOUT)
        if self.kind.mode in (Mode.A, Mode.B):
            return await self._read_out(option)
        return await self._select(option)

    async def _switch(self, baud: int | None) -> None:
        """Change to the agreed rate, unless a fault or a fixed rate keeps the meter from it."""
        if self.kind.is_fixed_rate or baud is None or self.faults.take("wrong-baud", State.OPTION) is not None:
            return
        await self._set_rate(replace(self._initial, baud=baud))

    async def _set_rate(self, line_format: LineFormat) -> None:
        """A client's time does not run faster with ours: a fast meter waits for its change of rate."""
        await self.line.set_format(line_format)
        self.notify()
        if self.config.speed > 1:
            await self.line.wait_rate(SWITCH_S)

    async def _select(self, table_option: str) -> SignOn | None:
        """Modes C and E: wait for the option select (A3)."""
        self._enter(State.OPTION)
        option = await self._next(self._real(OPTION_WAIT_S), expect_option=True)
        if isinstance(option, SignOn):
            return option
        if isinstance(option, iec.Command) and option.name == "B":
            self.breaks += 1
            return None
        if option is not None and await self._is_struck(State.OPTION):
            return None
        rate = self._agreed(option)
        if not isinstance(option, iec.Option) or rate is None:
            return await self._read_out(table_option)
        await self._reflect(iec.encode(option), State.OPTION)
        if option.protocol == "2":
            await self._react(6, State.OPTION)
            await self._send(iec.encode(option), State.OPTION)
            await self._set_rate(LineFormat(rate, 8, "N", 1))
            await self._speak_hdlc()
            return None
        state = State.PROGRAMMING if option.mode == "1" else State.READOUT
        await self._react(6, State.OPTION)
        await self._switch(rate)
        if state is State.PROGRAMMING:
            return await self._program()
        return await self._read_out(table_option if option.mode == "0" else option.mode)

    def _agreed(self, option: Heard | None) -> int | None:
        """The agreed rate; None for no valid option select, and the readout then comes at the initial rate."""
        if not isinstance(option, iec.Option):
            return None
        rate, offered = iec.BAUD_MODE_C.get(option.baud_char), self.kind.head.baud
        if rate is None or offered is None or rate > offered:
            return None
        if option.protocol == "2":
            return rate if self.kind.mode is Mode.E and option.mode == "2" else None
        if option.mode == "1":
            return rate if self.kind.has_programming else None
        is_known = option.mode == "0" or option.mode in self.kind.packets
        return rate if is_known and option.mode in DATA_OPTIONS else None

    async def _read_out(self, option: str) -> SignOn | None:
        """Send the readout, and again for every NAK, at most three times."""
        self._enter(State.READOUT)
        if await self._is_struck(State.READOUT):
            return None
        for _ in range(1 + MAX_REPEATS):
            text = self._readout_text(option)
            data = iec.encode(iec.Data(text)) if self.kind.is_framed else text.encode("ascii")
            await self._send(data, State.READOUT)
            self.readouts += 1
            self.notify()
            heard = await self._next(self._real(REPEAT_WAIT_S))
            if isinstance(heard, SignOn):
                return heard
            if not isinstance(heard, iec.Refuse):
                self.breaks += isinstance(heard, iec.Command) and heard.name == "B"
                return None
            await self._react(1, State.READOUT)
        return None

    async def _push(self) -> None:
        """Mode D: identification, empty line, data; nothing is received."""
        self._enter(State.READOUT)
        while True:
            await self.clock.sleep(self.config.every_s)
            if await self._is_struck(State.READOUT):
                continue
            data = iec.encode(self.kind.head) + b"\r\n" + self._readout_text("0").encode("ascii")
            await self._send(data, State.READOUT)
            self.pushes += 1
            self.notify()

    # -- programming mode

    async def _program(self) -> SignOn | None:
        """Programming mode until a break, silence or a new sign-on (A7)."""
        self._enter(State.PROGRAMMING)
        self._is_signed_in = False
        answer = iec.encode(iec.Command("P", "0", f"({self.data.serial})"))
        repeats = 0
        self._asked = ""
        while True:
            await self._send(answer, State.PROGRAMMING, self._asked)
            heard = await self._next(self._real(SILENCE_S))
            if heard is None or isinstance(heard, SignOn):
                return heard
            if isinstance(heard, iec.Command) and heard.name == "B":
                self.breaks += 1
                if self.kind.breaks_back:
                    await self._react(5, State.PROGRAMMING)
                    await self._send(iec.encode(iec.BREAK), State.PROGRAMMING)
                return None
            if isinstance(heard, iec.Refuse):
                repeats += 1
                if repeats > MAX_REPEATS:
                    return None
            elif isinstance(heard, iec.Damaged):
                answer = iec.NAK
            elif isinstance(heard, iec.Command):
                repeats = 0
                found = await self._answer_command(heard)
                if found is None:
                    await self._react(0, State.PROGRAMMING)
                    await self._send(iec.encode(iec.BREAK), State.PROGRAMMING)
                    return None
                answer = found
            else:
                answer = b""  # an ACK nobody asked for, or anything else: no answer
            octets = len(iec.encode(heard)) if isinstance(heard, iec.Command) else 1
            await self._react(octets, State.PROGRAMMING, self._asked)

    async def _answer_command(self, command: iec.Command) -> bytes | None:
        """The octets to answer with, b"" for none; None: the meter breaks off."""
        address, _, operand = (command.data or "").partition("(")
        operand = operand.removesuffix(")")
        self._asked = address
        places = (State.PROGRAMMING.value, address)
        await self._reflect(iec.encode(command), State.PROGRAMMING)
        if await self._is_struck(State.PROGRAMMING, address):
            return b""
        if (error := self.faults.take("error-er", *places)) is not None:
            return iec.encode(iec.ErrorMessage(error))
        if self.faults.take("nak-all", *places) is not None or command.more:
            return iec.NAK  # Choice: a command in partial blocks is not taken
        try:
            if command.name == "P":
                return self._check_password(operand)
            if command.name in "RWE" and not (self._is_signed_in or (command.name == "R" and self.kind.is_open)):
                raise Refused("ER03")
            if command.name == "R":
                return await self._answer_read(command.kind, address, operand)
            if command.name == "W":
                return self._answer_write(command.kind, address, operand)
            if command.name == "E" and command.kind == "2":
                self.data.executed.append(command.data or "")
                return iec.ACK
            raise Refused("ER01")
        except Refused as refusal:
            return iec.encode(iec.ErrorMessage(str(refusal)))

    def _check_password(self, given: str) -> bytes | None:
        if self.is_locked:
            raise Refused("ER04")
        if given == self._password and self.faults.take("refuse-password", State.PROGRAMMING) is None:
            self._is_signed_in, self._tries = True, 0
            return iec.ACK
        self._is_signed_in = False
        self.wrong_passwords += 1
        self._tries += 1
        if self._tries >= WRONG_PASSWORDS:
            self._tries, self._locked_until = 0, self.clock.elapsed + LOCK_S
        self.notify()
        match self.kind.refusal:
            case Refusal.NAK:
                return iec.NAK
            case Refusal.ERROR:
                raise Refused("ER03")
            case Refusal.BREAK:
                return None

    def _answer_write(self, kind: str, address: str, value: str) -> bytes:
        if kind not in self.kind.kinds:
            raise Refused("ER01")
        if self.is_locked:
            raise Refused("ER04")
        self.data.write(address, value)
        if address == "96.96":
            self._password = value
        self.notify()
        return iec.ACK

    async def _answer_read(self, kind: str, address: str, operand: str) -> bytes:
        if kind not in self.kind.kinds:
            raise Refused("ER01")
        if address.startswith("P."):
            if kind not in ("2", "4", "5", "6"):
                raise Refused("ER01")
            span, _, columns = operand.partition(")(")
            text = self.data.profile(address, span, columns)
        else:
            groups = self.data.read(address)
            text = f"{address}{groups}" if self.kind.answers_with_address else groups
        if kind in "346":
            return await self._send_in_parts(text)
        return iec.encode(iec.Data(text))

    async def _send_in_parts(self, text: str) -> bytes:
        """Partial blocks (A7): each but the last is sent here and waits for ACK; the last one is returned."""
        size = self.config.partial_chars
        parts = [text[at : at + size] for at in range(0, len(text), size)] or [""]
        for part in parts[:-1]:
            for _ in range(1 + MAX_REPEATS):
                await self._react(1, State.PROGRAMMING, self._asked)
                await self._send(iec.encode(iec.Data(part, more=True)), State.PROGRAMMING, self._asked)
                heard = await self._next(self._real(SILENCE_S))
                if isinstance(heard, iec.Acknowledge):
                    break
                if not isinstance(heard, iec.Refuse):
                    return b""
            else:
                return b""
        return iec.encode(iec.Data(parts[-1]))

    # -- mode E

    async def _speak_hdlc(self) -> None:
        """The DLMS meter has the line until the client disconnects or falls silent."""
        from app.simulators._iec62056_hdlc import HdlcSide

        self._enter(State.HDLC)
        side = HdlcSide(self.data.serial)
        while not side.is_over:
            try:
                data = await self.line.read(self._real(SILENCE_S))
            except TimeoutError:
                return
            for frame in side.answer(data):
                await self._react(0, State.HDLC)
                await self.line.write(frame)


_NOISE: Final = b"\x00\x7f~xU%*,"  # no start character


# --------------------------------------------------------------------------------------------------------- command line


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return read


def _between(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return read


def _speed(text: str) -> float:
    value = seconds(text)
    if value < 1:
        raise ValueError(text)
    return value


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(text)
    return text


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run a meter until cancelled; see ``catalog.ServeFunction``.

    Known ``extra`` names: link (pty or tcp), model, baud, serial, address, password, parity (none or even), speed (1
    or more), drift_s, period_min, profile_days, every_s, path (of the pseudo terminal's symbolic link). For a pseudo
    terminal the announcement has the port's path as ``url`` and no port number.
    """
    found: dict[str, Any] = read_extra(
        options.extra,
        {
            "link": _one_of(LINKS),
            "path": str,
            "model": _one_of(tuple(METERS)),
            "baud": _between(300, 115200),
            "serial": _name,
            "address": _name,
            "password": _name,
            "parity": _one_of(PARITIES),
            "speed": _speed,
            "drift_s": float,
            "period_min": _between(1, 60),
            "profile_days": _between(1, 400),
            "every_s": seconds,
        },
    )
    link, path = found.pop("link", "tcp"), found.pop("path", "")
    config = MeterConfig(seed=options.seed, faults=options.faults, **found)
    async with Iec62056Meter(config, link=link, port=options.port, path=path) as meter:
        announce(
            {
                "sim": meter.name,
                "host": "" if link == "pty" else meter.address.removeprefix("socket://").rpartition(":")[0],
                "port": 0 if link == "pty" else int(meter.address.rpartition(":")[2]),
                "url": meter.address,
                "link": link,
                "model": config.model,
                "serial": meter.data.serial,
                "format": str(meter.line.format),
            }
        )
        await asyncio.get_running_loop().create_future()
