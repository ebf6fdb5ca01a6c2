"""IEC 62056-21: one conversation with a meter as a state machine (specs/iec62056-and-dlms.md A2 to A7, A9).

Sans-I/O and without a clock of its own. Every input (``receive``, ``sent``, ``tick`` and the commands) takes the
present time in seconds and returns outputs that are carried out in their order: ``Send`` and ``SetFormat`` are for the
line, the others are events. After each ``Send`` has left the wire, ``sent`` is called before anything is received;
``tick`` is called at ``deadline``. Whatever the meter sends raises nothing; only a command that is not possible in the
present state raises LocalProtocolError, and what cannot be encoded ParameterError.

A readout, an identification and listening end by themselves; programming mode rests in PROG_READY until ``finish``.
Every end sends a break and goes back to the initial format, except where nothing is ever sent (mode D, listening).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from app.errors import LocalProtocolError, ParameterError
from app.model.line import LineFormat, add_parity, has_parity, plain, remove_parity
from app.protocols import iec62056_21 as iec
from app.protocols.iec62056_21 import BlockCheck, Command, Identification, Mode, Verdict

MAX_READOUT: Final = 8 << 20  # ours: octets of one answer that are kept; the largest recorded readout has 48 kB
MAX_NAKS: Final = 3  # A5
MAX_NAKS_CUT: Final = 1  # ours: of a readout that lacks nothing but its block check
NOISE: Final = 16  # ours: octets by which data of another rate are told
MAX_RAW: Final = 64 << 10  # ours: octets of an answer to octets that were sent as they were
MAX_STRANGE: Final = 256  # ours: octets that were no identification and are kept to tell what they may be
NULS_S: Final = 2.2  # A4: battery meters
NULS_PAUSE_S: Final = 1.6
HEAT_NULS: Final = 45
HEAT_BAUD: Final = 2400
SHORTEST: Final = 7  # octets of an identification without a name
LOWEST: Final = "0"  # always allowed as agreed baud character
HDLC_MODE: Final = "2"
HEAD_BAUD: Final = 300  # of an optical head, where every meter begins (A1)
FIXED_GENERATION: Final = 2  # of Turkish meters: one rate on RS-485 (A8)


class State(StrEnum):
    IDLE = "idle"
    WAKEUP = "waking the meter"
    SIGN_ON = "signing on"
    WAIT_IDENT = "waiting for the identification"
    OPTION_SELECT = "about to select"
    SWITCH = "switching the rate"
    WAIT_ECHO = "waiting for the confirmation of HDLC"
    HDLC = "HDLC"
    WAIT_DATA = "waiting for data at the meter's own time"
    READOUT = "reading out"
    PROG_WAIT_P0 = "entering programming mode"
    PROG_AUTH = "giving the password"
    PROG_READY = "programming mode"
    PROG_WAIT_ANSWER = "waiting for an answer"
    LISTENING = "listening"
    RAW = "waiting for an answer to octets"
    BREAK = "breaking off"


class Move(StrEnum):
    WAKE = "wake"
    ASK = "ask"
    SENT = "sent"
    DATA = "the meter sends by itself"
    SELECT = "select"
    LEAVE = "the selection leaves"
    READ = "readout selected"
    PROGRAM = "programming selected"
    CONFIRM = "HDLC selected"
    CONFIRMED = "confirmed"
    FALL_BACK = "back to the initial rate"
    PASSWORD = "password wanted"
    READY = "ready"
    COMMAND = "command"
    LISTEN = "listen"
    OCTETS = "octets"
    END = "end"
    GIVE_UP = "give up"


_TALKING: Final = (
    State.WAKEUP, State.SIGN_ON, State.WAIT_IDENT, State.OPTION_SELECT, State.SWITCH, State.WAIT_ECHO, State.WAIT_DATA,
    State.READOUT, State.PROG_WAIT_P0, State.PROG_AUTH, State.PROG_READY, State.PROG_WAIT_ANSWER, State.RAW,
)  # fmt: skip
_AGAIN: Final = (State.WAIT_IDENT, State.WAIT_DATA, State.READOUT, State.PROG_WAIT_P0)
TRANSITIONS: Final[Mapping[tuple[State, Move], State]] = MappingProxyType(
    {
        (State.IDLE, Move.WAKE): State.WAKEUP,
        (State.IDLE, Move.ASK): State.SIGN_ON,
        (State.IDLE, Move.LISTEN): State.LISTENING,
        (State.IDLE, Move.OCTETS): State.RAW,
        (State.WAKEUP, Move.ASK): State.SIGN_ON,
        (State.SIGN_ON, Move.SENT): State.WAIT_IDENT,
        (State.WAIT_IDENT, Move.DATA): State.WAIT_DATA,
        (State.WAIT_IDENT, Move.SELECT): State.OPTION_SELECT,
        (State.OPTION_SELECT, Move.LEAVE): State.SWITCH,
        (State.SWITCH, Move.READ): State.READOUT,
        (State.SWITCH, Move.PROGRAM): State.PROG_WAIT_P0,
        (State.SWITCH, Move.CONFIRM): State.WAIT_ECHO,
        (State.WAIT_ECHO, Move.CONFIRMED): State.HDLC,
        (State.WAIT_ECHO, Move.SELECT): State.OPTION_SELECT,
        (State.READOUT, Move.FALL_BACK): State.WAIT_DATA,
        (State.PROG_WAIT_P0, Move.PASSWORD): State.PROG_AUTH,
        (State.PROG_WAIT_P0, Move.READY): State.PROG_READY,
        (State.PROG_AUTH, Move.READY): State.PROG_READY,
        (State.PROG_READY, Move.COMMAND): State.PROG_WAIT_ANSWER,
        (State.PROG_WAIT_ANSWER, Move.READY): State.PROG_READY,
        **{(state, Move.WAKE): State.WAKEUP for state in _AGAIN},
        **{(state, Move.ASK): State.SIGN_ON for state in _AGAIN},
        **{(state, Move.END): State.BREAK for state in _TALKING},
        (State.BREAK, Move.SENT): State.IDLE,
        (State.WAIT_IDENT, Move.GIVE_UP): State.IDLE,
        (State.LISTENING, Move.END): State.IDLE,
        (State.HDLC, Move.END): State.IDLE,
    }
)
RESTING: Final = frozenset({State.IDLE, State.PROG_READY, State.HDLC})
"""States in which nothing is awaited."""


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times in seconds (A4). ``reaction_max_s`` and the rest of the waits are for the meter, the least time is ours."""

    reaction_min_s: float = 0.2
    reaction_max_s: float = 1.5
    margin_s: float = 0.5  # on top of the longest reaction
    gap_s: float = 1.5  # between two octets of a message
    repeat_s: float = 1.5  # extra wait before a repeat
    ident_s: float = 8.0  # a whole identification, noise before it included
    quiet_s: float = 60.0  # ours: the longest wait for a line to fall silent before a sign-on

    @property
    def first_s(self) -> float:
        return self.reaction_max_s + self.margin_s


STANDARD: Final = Timing()
TURKISH_2: Final = Timing(reaction_min_s=0.25, reaction_max_s=1.25)
TURKISH_3: Final = Timing()
_BY_GENERATION: Final[Mapping[int, Timing]] = MappingProxyType({2: TURKISH_2, 3: TURKISH_3})


class Wakeup(StrEnum):
    NONE = "none"
    BATTERY = "battery"
    HEAT = "heat"


class Job(StrEnum):
    """What a sign-on is for."""

    IDENTIFY = "identification"
    READOUT = "readout"
    PROGRAMMING = "programming mode"
    HDLC = "HDLC"


INITIAL: Final = LineFormat(300, 7, "E", 1)  # A1


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How one meter is talked to. With ``software_parity`` the line is 8N1 and the octets are 7E1.

    Args:
        mode: None: as the identification says.
        timing: None: the standard's, or the meter's national ones as soon as it says which generation it is.
        data_s: first octet of a readout and of an answer in programming mode: real meters need up to 5 s.
        repeats: of what stays without an answer.
        packet: mode character of the option select for a readout.
        password: None: programming mode is used without. ``level`` is its kind: P1 or P2.
        spares_mass: it is not given to Turkish national meters, which are read without (A8).
        sign_off: "0", or "1" for battery meters with fast wake-up.
        is_trial: a sign-on without answer is not followed by a break: at a wrong rate that is rubbish, in which a meter
            would miss the beginning of the next one.
    """

    initial: LineFormat = INITIAL
    software_parity: bool = False
    request: iec.Request = field(default_factory=iec.Request)
    mode: Mode | None = None
    max_baud: int = 19200
    timing: Timing | None = None
    data_s: float = 5.0
    wakeup: Wakeup = Wakeup.NONE
    repeats: int = 3
    packet: str = "0"
    password: str | None = field(default=None, repr=False)
    level: str = "1"
    spares_mass: bool = False
    sign_off: str = "0"
    is_trial: bool = False
    max_octets: int = MAX_READOUT


# ---------------------------------------------------------------- outputs


@dataclass(frozen=True, slots=True)
class Send:
    """Octets as they go on the wire, parity included. They may hold a password and are not shown."""

    data: bytes = field(repr=False)
    note: str


@dataclass(frozen=True, slots=True)
class SetFormat:
    """Change the open line, at once: the other side switches within 200 or 20 ms (A3)."""

    format: LineFormat


@dataclass(frozen=True, slots=True)
class Identified:
    """The meter said who it is; ``mode`` is the one that is used with it."""

    identification: Identification
    mode: Mode


@dataclass(frozen=True, slots=True)
class Progress:
    """So much of an answer has come."""

    lines: int
    octets: int


@dataclass(frozen=True, slots=True)
class DataSetSeen:
    """A data set of a readout whose end has not come."""

    data_set: iec.DataSet


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """A whole data block, from STX where there is one; the identification stands apart."""

    data: bytes
    check: BlockCheck


@dataclass(frozen=True, slots=True)
class Ready:
    """Programming mode takes commands. ``operand`` came with P0: a serial number or seed, None where it came not."""

    operand: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to the command: the text of its data, partial blocks joined, or None for an acknowledgement."""

    text: str | None


@dataclass(frozen=True, slots=True)
class MeterError:
    """The meter answered no: an error message (``ER01``), or NAK."""

    text: str


@dataclass(frozen=True, slots=True)
class PasswordRefused:
    """Final: the same password must not be given again (A7)."""

    text: str


@dataclass(frozen=True, slots=True)
class HdlcReady:
    """The meter confirmed; from now on the line speaks HDLC. ``rest`` came after the confirmation."""

    rest: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of a line that is only listened to."""

    message: iec.Message | iec.Damaged
    octets: int


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came after octets that were sent as they were."""

    data: bytes


class Fault(StrEnum):
    SILENT = "NO_ANSWER"
    NOISE = "NO_IDENTIFICATION"
    NO_DATA = "NO_DATA"
    CHECK = "BAD_CHECK"
    INCOMPLETE = "INCOMPLETE"
    TOO_LONG = "TOO_LONG"
    ENDED = "ENDED_BY_METER"
    RATE = "RATE"
    MODE = "MODE"


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot go on. ``data`` is what came of a block, for a person to look at."""

    fault: Fault
    sentence: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Finished:
    """The conversation is over and the line has its initial format again."""


Event: TypeAlias = (
    Identified | Progress | DataSetSeen | BlockReceived | Ready | Answered | MeterError | PasswordRefused | HdlcReady
    | Heard | RawAnswer | Failed | Finished
)  # fmt: skip
Output: TypeAlias = Send | SetFormat | Event


# ---------------------------------------------------------------- a data block on its way


class _Block:
    """A data block octet by octet: from STX to the block check, or lines up to ``!`` where it has no frame (A2)."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lines = 0
        self.is_framed = False
        self.is_terminated = False  # the closing ! came
        self.has_check = False
        self.has_sets = False
        self._seen = 0
        self._line = 0
        self._ends_at: int | None = None

    @property
    def is_begun(self) -> bool:
        return self.is_framed or self.has_sets

    @property
    def is_noise(self) -> bool:
        """Enough has come, and more than a quarter of it is no text: it was sent at another rate."""
        head = bytes(self.data[:NOISE])
        return len(head) == NOISE and 4 * len(head.translate(None, _TEXT)) > NOISE

    def feed(self, octets: bytes) -> tuple[list[iec.DataSet], bytes | None]:
        """The data sets of the lines that are complete now, and what followed the block's end (None: not ended)."""
        self.data += octets
        sets: list[iec.DataSet] = []
        while True:
            if self._ends_at is not None:
                return sets, self._end(self._ends_at + 2) if len(self.data) >= self._ends_at + 2 else None
            if self.is_terminated and not self.is_framed:
                rest = _AFTER_END.match(self.data, self._seen)
                if rest is not None and rest.end() < len(self.data) and self.data[rest.end()] != iec.ETX[0]:
                    return sets, self._end(self._seen)
            mark = _MARK.search(self.data, self._seen)
            if mark is None:
                self._seen = max(self._seen, len(self.data)) if not self.is_terminated else self._seen
                return sets, None
            self._seen = mark.end()
            match mark[0]:
                case b"\n":
                    sets += self._line_end()
                case b"\x03":
                    if self.is_begun or self.is_terminated:
                        self.has_check = True
                        self._ends_at = mark.start()
                case _ if mark[0] == iec.STX and self.data[:1] == iec.SOH and mark.start() == _COMMAND_HEAD:
                    pass
                case _:
                    self._restart(mark.start())

    def _end(self, end: int) -> bytes:
        rest = bytes(self.data[end:])
        del self.data[end:]
        return rest

    def _restart(self, start: int) -> None:
        """A start character: what was before it belongs to no frame."""
        del self.data[:start]
        self.lines, self._line, self._seen = 0, 1, 1
        self.is_framed, self.is_terminated, self.has_sets = True, False, False

    def _line_end(self) -> tuple[iec.DataSet, ...]:
        text = bytes(self.data[self._line : self._seen]).decode("latin-1").strip("\0\r\n\t ")
        self._line = self._seen
        self.lines += 1
        if text == "!" or text.endswith(")!"):
            self.is_terminated = True
        if "(" not in text or len(text) > MAX_SHOWN_LINE:
            return ()
        found, _damages = iec.parse_sets(text.removesuffix("!"))
        self.has_sets = self.has_sets or bool(found)
        return found


MAX_SHOWN_LINE: Final = 1024  # ours: of a line that is told while the block comes; the block keeps all of them
_TEXT: Final = bytes((*b"\0\t\r\n\x01\x02\x03", *range(0x20, 0x7F)))
_MARK: Final = re.compile(rb"[\x01\x02\x03\n]")
_AFTER_END: Final = re.compile(rb"[\0\r\n]*")
_COMMAND_HEAD: Final = 3


# ---------------------------------------------------------------- the machine

_Timer: TypeAlias = Callable[[float], None]


class Session:
    """One conversation at a time; after ``Finished`` the next one may begin. ``parity_faults`` counts octets."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = State.IDLE
        self.format = config.initial
        self.parity_faults = 0
        self._out: list[Output] = []
        self._due: float | None = None
        self._on_due: _Timer = self._nothing
        self._on_sent: _Timer | None = None
        self._heard_at = float("-inf")
        self._echoes: bool | None = None
        self._echo = b""  # octets of ours that may still come back
        self._echoed = b""  # of those, what came
        self._begin(Job.IDENTIFY)

    def _begin(self, job: Job) -> None:
        self._job = job
        self._tries = 0
        self._naks = 0
        self._identification: Identification | None = None
        self._agreed = ""
        self._ident_until = 0.0
        self._quiet_until: float | None = None
        self._strange = bytearray()  # what came after a sign-on and was no identification
        self._strange_count = 0
        self._framer = iec.Framer()
        self._block: _Block | None = None
        self._command: Command | None = None
        self._answer: list[str] = []
        self._answer_size = 0
        self._lines = 0
        self._refusals = 0
        self._damage: tuple[Fault, str, bytes] | None = None
        self._operand_text: str | None = None
        self._is_expecting = False
        self._patience: float | None = None
        self._raw = bytearray()
        self._raw_wait = 0.0

    # ------------------------------------------------------------ what the driver sees

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is due; None while something is being sent, and where nothing is awaited."""
        return None if self._on_sent is not None else self._due

    @property
    def is_resting(self) -> bool:
        return self.state in RESTING

    def receive(self, data: bytes, now: float) -> list[Output]:
        """Octets as they came from the line."""
        if not data:
            return self._take()
        self._heard_at = now
        if self.state is State.HDLC:
            return self._take()
        if self.config.software_parity:
            data, faults = remove_parity(data)
            self.parity_faults += len(faults)
        self._octets(self._without_echo(data), now)
        return self._take()

    def sent(self, now: float) -> list[Output]:
        """The last ``Send`` has left the wire."""
        done, self._on_sent = self._on_sent, None
        if done is not None:
            done(now)
        return self._take()

    def tick(self, now: float) -> list[Output]:
        """Time has passed; nothing happens before ``deadline``."""
        due = self.deadline
        if due is not None and now >= due:
            state, over = self.state, self._on_due
            self._due = None
            if held := self._release_echo():
                self._octets(held, now)
            if self.state is state and self._due is None and self._on_sent is None:
                over(now)
        return self._take()

    def _take(self) -> list[Output]:
        out, self._out = self._out, []
        return out

    # ------------------------------------------------------------ commands

    def sign_on(self, job: Job, now: float) -> list[Output]:
        """Begin a conversation.

        Raises:
            ParameterError: the meter's address cannot be sent. LocalProtocolError: a conversation is under way.
        """
        self._need(State.IDLE, "a sign-on")
        iec.encode(self.config.request)
        self._begin(job)
        self._ask(now)
        return self._take()

    def listen(self, now: float, *, patience_s: float | None = None) -> list[Output]:
        """Receive only (mode D and lines of others): for ever, or until one data block came within ``patience_s``.

        Raises:
            LocalProtocolError: a conversation is under way.
        """
        self._need(State.IDLE, "listening")
        self._begin(Job.READOUT)
        self._framer = iec.Framer(is_passive=True, limit=self.config.max_octets)
        self._patience = None if patience_s is None else now + patience_s
        self._move(Move.LISTEN)
        self._expect(self._patience, self._nothing_heard)
        return self._take()

    def command(self, command: Command, now: float) -> list[Output]:
        """Read, write or execute in programming mode.

        Raises:
            ParameterError: it cannot be encoded. LocalProtocolError: programming mode does not stand.
        """
        self._need(State.PROG_READY, f"{command.name}{command.kind}")
        iec.encode(command)
        self._command = command
        self._tries = self._naks = self._refusals = self._lines = 0
        self._damage = None
        self._answer.clear()
        self._answer_size = 0
        self._framer = iec.Framer(limit=2 * self.config.max_octets)
        self._move(Move.COMMAND)
        self._reply(self._send_command, now)
        return self._take()

    def raw(self, data: bytes, now: float, wait_s: float) -> list[Output]:
        """Send seven-bit octets as they are; what comes until the line is silent is the answer.

        Raises:
            LocalProtocolError: a conversation is under way.
        """
        self._need(State.IDLE, "sending octets")
        self._begin(Job.IDENTIFY)
        self._move(Move.OCTETS)
        self._raw_wait = wait_s
        self._send(data, "octets as entered", self._raw_sent)
        return self._take()

    def finish(self, now: float) -> list[Output]:
        """End in order: a break as soon as the meter may be answered, then the initial format."""
        self._end(now)
        return self._take()

    def cancel(self, now: float) -> list[Output]:
        """End at once, also while the meter sends or a ``Send`` was given up half-way."""
        self._on_sent = None
        if self.state is State.BREAK:
            self._break(now)
        else:
            self._end(now, is_at_once=True)
        return self._take()

    def _need(self, state: State, what: str) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"The meter's line is {self.state.value}: {what} is not possible now.")

    # ------------------------------------------------------------ moving, sending, waiting

    def _move(self, move: Move) -> None:
        try:
            self.state = TRANSITIONS[self.state, move]
        except KeyError:
            raise LocalProtocolError(f"{move.name} in {self.state.name}") from None
        self._due = None

    def _nothing(self, _now: float) -> None:
        """The timer of a state that waits for nothing."""

    def _wait(self, until: float, then: _Timer, now: float) -> None:
        """Do something ourselves at ``until``; at once where that is past."""
        self._is_expecting = False
        if until <= now:
            self._due = None
            then(now)
        else:
            self._due, self._on_due = until, then

    def _reply(self, then: _Timer, now: float) -> None:
        """Send as soon as the meter may be answered; what came behind its message belongs to nothing."""
        self._framer.take_rest()
        self._wait(max(now, self._heard_at + self._reaction_min_s), then, now)

    def _expect(self, until: float | None, otherwise: _Timer) -> None:
        """Wait for the meter; what it sends may put the end off."""
        self._is_expecting = True
        self._due, self._on_due = until, otherwise

    def _send(self, data: bytes, note: str, then: _Timer, line_format: LineFormat | None = None) -> None:
        """Send, and change the format as soon as it has left."""
        self._out.append(Send(add_parity(data) if self.config.software_parity else data, note))
        if line_format is not None:
            self._set_format(line_format)
        self._due = None
        self._on_sent = then
        self._echo, self._echoed = (data.strip(b"\0") if self._echoes is not False else b""), b""

    def _set_format(self, line_format: LineFormat) -> None:
        if line_format != self.format:
            self.format = line_format
            self._out.append(SetFormat(line_format))

    @property
    def timing(self) -> Timing:
        """As configured, or the standard's until the meter has said which generation it is."""
        if self.config.timing is not None:
            return self.config.timing
        mass = self._identification.mass if self._identification is not None else None
        return STANDARD if mass is None else _BY_GENERATION.get(mass[0], STANDARD)

    @property
    def _reaction_min_s(self) -> float:
        ident = self._identification
        if ident is not None and ident.manufacturer[2].islower():
            return ident.min_reaction_ms / 1000
        return self.timing.reaction_min_s

    # ------------------------------------------------------------ our own octets, reflected (A1)

    def _without_echo(self, data: bytes) -> bytes:
        """``data`` without the exact copy of what was sent last. What may still become one is held back.

        Only the sign-on is looked for without knowing: no answer to it can equal it, so from then on it is known
        whether this head reflects, and a confirmation that equals what it confirms is not taken for a reflection.
        """
        if not self._echo:
            return data
        before = b""
        if not self._echoed:
            rest = data.lstrip(b"\0")
            before, data = data[: len(data) - len(rest)], rest
        came = self._echoed + data
        if came.startswith(self._echo):
            rest, self._echo, self._echoed, self._echoes = came[len(self._echo) :], b"", b"", True
            return before + rest
        if self._echo.startswith(came):
            self._echoed = came
            return before
        self._echo, self._echoed = b"", b""
        return before + came

    def _release_echo(self) -> bytes:
        held, self._echo, self._echoed = self._echoed, b"", b""
        return held

    # ------------------------------------------------------------ the end

    def _fail(self, fault: Fault, sentence: str, now: float, data: bytes = b"") -> None:
        self._out.append(Failed(fault, sentence, data))
        self._end(now)

    def _end(self, now: float, *, is_at_once: bool = False) -> None:
        match self.state:
            case State.IDLE | State.BREAK:
                return
            case State.LISTENING | State.HDLC:
                self._move(Move.END)
                self._over(now)
            case State.WAIT_IDENT if self.config.is_trial and self._identification is None and not is_at_once:
                self._move(Move.GIVE_UP)
                self._over(now)
            case _:
                self._move(Move.END)
                self._wait(now if is_at_once else self._heard_at + self._reaction_min_s, self._break, now)

    def _break(self, _now: float) -> None:
        self._send(iec.encode(Command("B", self.config.sign_off)), "break", self._broken, self.config.initial)

    def _broken(self, now: float) -> None:
        self._move(Move.SENT)
        self._over(now)

    def _over(self, _now: float) -> None:
        self._set_format(self.config.initial)
        self._echo, self._echoed = b"", b""
        self._out.append(Finished())

    # ------------------------------------------------------------ sign-on

    def _ask(self, now: float) -> None:
        self._tries += 1
        self._set_format(self.config.initial)
        initial = self.config.initial
        match self.config.wakeup:
            case Wakeup.NONE:
                self._request(now)
            case Wakeup.BATTERY:
                self._move(Move.WAKE)
                count = int(NULS_S * initial.baud / initial.character_bits)
                self._send(bytes(count), "wake-up", self._woken)
            case Wakeup.HEAT:
                self._move(Move.WAKE)
                self._send(bytes(HEAT_NULS), "wake-up", self._request)

    def _woken(self, now: float) -> None:
        self._wait(now + NULS_PAUSE_S, self._request, now)

    def _request(self, _now: float) -> None:
        self._move(Move.ASK)
        answer = None
        if self.config.wakeup is Wakeup.HEAT and self._tries % 2:  # A4; some identify themselves at the initial rate
            answer = self._at(HEAT_BAUD)
        self._send(iec.encode(self.config.request), "sign-on", self._asked, answer)

    def _at(self, baud: int) -> LineFormat:
        initial = self.config.initial
        return LineFormat(baud, initial.data_bits, initial.parity, initial.stop_bits)

    def _asked(self, now: float) -> None:
        self._move(Move.SENT)
        self._framer = iec.Framer()
        self._ident_until = now + self.timing.ident_s
        self._expect(now + self.timing.first_s, self._no_ident)

    def _ident_heard(self, data: bytes, now: float) -> None:
        self._framer.feed(data)
        while (found := self._framer.next()) is not None:
            if isinstance(found.message, Identification):
                self._identified(found.message, self._framer.take_rest(), now)
                return
        heard = data.replace(b"\0", b"")
        self._strange_count += len(heard)
        self._strange += heard[: MAX_STRANGE - len(self._strange)]
        if self._quiet_until is not None and not self._is_expecting:  # a repeat waits until nobody sends
            quiet = min(now + self.timing.gap_s, self._quiet_until)
            self._wait(quiet if self._due is None else max(quiet, self._due), self._ask, now)
        elif self._framer.pending and now < self._ident_until:
            self._expect(min(now + self.timing.gap_s, self._ident_until), self._no_ident)

    def _no_ident(self, now: float) -> None:
        if self._tries <= self.config.repeats:
            if self._quiet_until is None:
                self._quiet_until = now + self.timing.quiet_s
            self._wait(now + self.timing.repeat_s, self._ask, now)
            return
        times = "once" if self._tries == 1 else f"{self._tries} times"
        if self._strange_count:
            octets = "octet" if self._strange_count == 1 else "octets"
            self._fail(
                Fault.NOISE,
                f"{self._strange_count} {octets} came after the sign-on, sent {times} at {self._words()}, and no "
                f"identification. {_likely(bytes(self._strange))}",
                now, bytes(self._strange),
            )  # fmt: skip
            return
        self._fail(
            Fault.SILENT,
            f"No answer to the sign-on, sent {times} at {self._words()}. Check the place of the optical head or the "
            "wiring, the rate and format, and the meter's address; Detect tries the usual formats.",
            now,
        )

    def _words(self) -> str:
        initial = self.config.initial
        return f"{initial.baud} 7E1 (parity by software)" if self.config.software_parity else str(initial)

    def _identified(self, ident: Identification, rest: bytes, now: float) -> None:
        if self._echoes is None:
            self._echoes = False
        self._identification = ident
        mode = self.config.mode if self.config.mode is not None else ident.mode
        self._out.append(Identified(ident, mode))
        if self._job is Job.IDENTIFY:
            self._end(now)
        elif mode in (Mode.A, Mode.B):
            self._send_by_itself(ident, mode, rest, now)
        elif self._job is Job.HDLC and not ident.is_hdlc_capable and mode is not Mode.E:
            self._fail(Fault.MODE, f"The meter {ident} does not offer HDLC (mode E).", now)
        else:
            self._agreed = self._rate_character(ident)
            self._select(now)

    def _send_by_itself(self, ident: Identification, mode: Mode, rest: bytes, now: float) -> None:
        """Modes A and B: no option select (A3)."""
        if self._job is not Job.READOUT:
            self._fail(
                Fault.MODE, f"The meter {ident} works in mode {mode.value}, which has no {self._job.value}. "
                "Read it out instead.", now,
            )  # fmt: skip
            return
        baud = _RATES.get(ident.baud_char) if mode is Mode.B else self.config.initial.baud
        if baud is None or baud > self.config.max_baud:
            offered = "a rate that is not defined" if baud is None else f"{baud} Bd"
            self._fail(
                Fault.RATE, f"The meter {ident} sends its data at {offered} and cannot be told another rate. "
                f"The highest rate of this connection is {self.config.max_baud} Bd.", now,
            )  # fmt: skip
            return
        self._move(Move.DATA)
        if mode is Mode.B:
            self._set_format(self._at(baud))
        self._await_block(now)
        if rest:
            self._block_heard(rest, now)

    def _rate_character(self, ident: Identification) -> str:
        """The offered character, or the highest one that our limit allows.

        A Turkish meter of generation 2 on RS-485 stays at the rate it was begun with, whatever it offers (A8).
        """
        offered = _RATES.get(ident.baud_char)
        if offered is None:
            return LOWEST
        begun = self.config.initial.baud
        is_fixed = ident.mass is not None and ident.mass[0] == FIXED_GENERATION and HEAD_BAUD < begun <= offered
        if is_fixed and (same := _CHARACTERS.get(begun)) is not None:
            return same
        allowed = [
            char for char, rate in iec.BAUD_MODE_C.items() if rate <= offered and rate <= self.config.max_baud
        ]  # fmt: skip
        return allowed[-1] if allowed else LOWEST

    # ------------------------------------------------------------ option select and what follows

    def _select(self, now: float) -> None:
        self._move(Move.SELECT)
        self._reply(self._send_option, now)

    def _send_option(self, _now: float) -> None:
        self._move(Move.LEAVE)
        rate = self._at(iec.BAUD_MODE_C[self._agreed])
        match self._job:
            case Job.HDLC:
                self._send_selection(HDLC_MODE, HDLC_MODE, self._hdlc_selected, None)
            case Job.PROGRAMMING:
                self._send_selection("0", "1", self._programming_selected, rate)
            case _:
                self._send_selection("0", self.config.packet, self._readout_selected, rate)

    def _send_selection(self, protocol: str, mode: str, then: _Timer, rate: LineFormat | None) -> None:
        self._send(iec.encode(iec.Option(protocol, self._agreed, mode)), "option select", then, rate)

    def _readout_selected(self, now: float) -> None:
        self._move(Move.READ)
        self._await_block(now)

    def _programming_selected(self, now: float) -> None:
        self._move(Move.PROGRAM)
        self._framer = iec.Framer(limit=2 * self.config.max_octets)
        self._expect(now + self.config.data_s, self._no_operand)

    def _hdlc_selected(self, now: float) -> None:
        self._move(Move.CONFIRM)
        self._framer = iec.Framer(expect_option=True)
        self._expect(now + self.timing.first_s, self._no_confirmation)

    def _confirmation_heard(self, data: bytes, now: float) -> None:
        self._framer.feed(data)
        while (found := self._framer.next()) is not None:
            if found.message == iec.Option(HDLC_MODE, self._agreed, HDLC_MODE):
                self._move(Move.CONFIRMED)
                self._set_format(LineFormat(iec.BAUD_MODE_C[self._agreed], 8, "N", 1))
                self._out.append(HdlcReady(self._framer.take_rest()))
                return

    def _no_confirmation(self, now: float) -> None:
        self._job = Job.READOUT
        self._select(now)

    # ------------------------------------------------------------ a data block

    def _await_block(self, now: float) -> None:
        self._block = _Block()
        self._lines = 0
        self._expect(now + self.config.data_s, self._no_data)

    def _block_heard(self, data: bytes, now: float) -> None:
        block = self._block
        if block is None:
            return
        sets, rest = block.feed(data)
        self._out += [DataSetSeen(one) for one in sets]
        if block.lines != self._lines:
            self._lines = block.lines
            self._out.append(Progress(block.lines, len(block.data)))
        if rest is not None:
            self._block_over(block, now)
        elif len(block.data) > self.config.max_octets:
            self._fail(Fault.TOO_LONG, _too_long(self.config.max_octets), now)
        elif self._may_fall_back and block.is_noise:
            self._fall_back(now)
        elif block.is_begun or block.is_terminated:
            self._expect(now + self.timing.gap_s, self._block_paused)

    def _block_over(self, block: _Block, now: float) -> None:
        data = bytes(block.data)
        if data[:1] == iec.SOH:
            self._await_block(now)
            found = iec.take(data)
            if found is not None and found.message == iec.BREAK:
                self._fail(Fault.ENDED, ENDED_BY_METER, now)
            return
        check = iec.check_of(data)
        if check.verdict in (Verdict.GOOD, Verdict.GOOD_WITH_START, Verdict.NO_CHECK):
            self._accept(data, check, now)
        else:
            self._bad(Fault.CHECK, check.sentence, data, now)

    def _block_paused(self, now: float) -> None:
        block = self._block
        if block is None:
            return
        data = bytes(block.data)
        sentence = f"The answer breaks off after {len(data)} octets."
        if block.is_framed and block.is_terminated:
            sentence = f"The end of the block and its check are missing after {len(data)} octets."
            self._bad(Fault.INCOMPLETE, sentence, data, now, naks=MAX_NAKS_CUT)
        elif block.is_framed:
            self._bad(Fault.INCOMPLETE, sentence, data, now)
        elif block.is_terminated:
            self._accept(data, iec.check_of(data), now)
        else:
            self._fail(Fault.INCOMPLETE, f"{sentence} Read again.", now, data)

    def _accept(self, data: bytes, check: BlockCheck, now: float) -> None:
        found = iec.take(data) if len(data) <= iec.MAX_LINE else None
        if found is not None and isinstance(found.message, iec.ErrorMessage):
            self._out.append(MeterError(found.message.text))
        else:
            self._out.append(BlockReceived(data, check))
        self._end(now)

    @property
    def _may_fall_back(self) -> bool:
        return self.state is State.READOUT and self.format != self.config.initial

    def _fall_back(self, now: float) -> None:
        """No valid option select reached the meter: it sends its readout at the initial rate (A3)."""
        self._move(Move.FALL_BACK)
        self._set_format(self.config.initial)
        self._await_block(now)

    def _no_data(self, now: float) -> None:
        if self._damage is not None:
            self._give_up_block(now)
        elif self._may_fall_back:
            self._fall_back(now)
        elif self._tries <= self.config.repeats:
            self._set_format(self.config.initial)
            self._wait(now + self.timing.repeat_s, self._ask, now)
        else:
            self._fail(
                Fault.NO_DATA, f"The meter {self._identification} identified itself and sent no data, {self._tries} "
                "times. A lower maximum rate may help.", now,
            )  # fmt: skip

    # ------------------------------------------------------------ damaged blocks (A5)

    def _bad(self, fault: Fault, sentence: str, data: bytes, now: float, *, naks: int = MAX_NAKS) -> None:
        self._damage = fault, sentence, data
        if self._naks >= naks:
            self._give_up_block(now)
            return
        self._naks += 1
        if self._block is not None:
            self._block = _Block()
        self._reply(self._send_nak, now)

    def _send_nak(self, _now: float) -> None:
        self._send(iec.NAK, "asks for the block again", self._nak_sent)

    def _nak_sent(self, now: float) -> None:
        match self.state:
            case State.READOUT | State.WAIT_DATA:
                self._await_block(now)
            case State.PROG_WAIT_P0:
                self._expect(now + self.config.data_s, self._no_operand)
            case _:
                self._expect(now + self.config.data_s, self._no_answer)

    def _give_up_block(self, now: float) -> None:
        assert self._damage is not None
        fault, sentence, data = self._damage
        times = "once" if self._naks == 1 else f"{self._naks} times"
        self._fail(
            fault, f"{sentence} The block was asked for again {times}. Check the head's place, the wiring and "
            "the rate.", now, data,
        )  # fmt: skip

    # ------------------------------------------------------------ programming mode (A7)

    def _message_heard(self, data: bytes, now: float) -> None:
        if self.state is State.PROG_WAIT_ANSWER and (lines := data.count(b"\n")):
            self._lines += lines
            self._out.append(Progress(self._lines, self._answer_size + self._framer.pending + len(data)))
        self._framer.feed(data)
        state = self.state
        while self.state is state and (found := self._framer.next()) is not None:
            if isinstance(found.message, Command) and found.message.name == "B":
                self._ended_by_meter(now)
            else:
                _PROGRAMMING[state](self, found.message, now)
        if self.state is not state:
            return
        if self._framer.pending + self._answer_size > self.config.max_octets:
            self._fail(Fault.TOO_LONG, _too_long(self.config.max_octets), now)
        elif self._is_expecting and self._framer.pending and state is not State.PROG_READY:
            self._expect(now + self.timing.gap_s, self._message_paused)

    def _ended_by_meter(self, now: float) -> None:
        if self.state is State.PROG_AUTH:
            self._refused("it broke off", now)
        else:
            self._fail(Fault.ENDED, ENDED_BY_METER, now)

    def _message_paused(self, now: float) -> None:
        cut = self._framer.take_rest()
        sentence = f"The answer breaks off after {len(cut)} octets."
        if self.state is State.PROG_AUTH:
            self._refused("its answer cannot be read", now)
        else:
            self._bad(Fault.INCOMPLETE, sentence, cut, now)

    def _operand(self, message: iec.Message | iec.Damaged, now: float) -> None:
        match message:
            case Command("P", "0", data):
                self._tries = 0
                operand = None if data is None else data.removeprefix("(").removesuffix(")")
                self._operand_text = operand
                ident = self._identification
                is_spared = self.config.spares_mass and ident is not None and ident.mass is not None
                if self.config.password is None or is_spared:
                    self._ready()
                else:
                    self._move(Move.PASSWORD)
                    self._reply(self._send_password, now)
            case iec.ErrorMessage(text):
                self._out.append(MeterError(text))
                self._end(now)
            case iec.Refuse():
                self._out.append(MeterError(REFUSAL))
                self._end(now)
            case iec.Damaged(sentence, check) if not check.is_good:
                self._bad(Fault.CHECK, sentence, b"", now)
            case _:
                pass

    def _ready(self) -> None:
        self._move(Move.READY)
        self._out.append(Ready(self._operand_text))

    def _no_operand(self, now: float) -> None:
        if self._damage is not None:
            self._give_up_block(now)
        elif self._tries <= self.config.repeats:
            self._set_format(self.config.initial)
            self._wait(now + self.timing.repeat_s, self._ask, now)
        else:
            self._fail(
                Fault.NO_DATA, f"The meter {self._identification} did not enter programming mode, {self._tries} times. "
                "It may offer readouts only; a lower maximum rate may help.", now,
            )  # fmt: skip

    def _send_password(self, _now: float) -> None:
        command = Command("P", self.config.level, f"({self.config.password})")
        try:
            data = iec.encode(command)
        except ParameterError:
            self._fail(
                Fault.MODE, "The password holds characters that cannot be sent; enter it again in the connection.", _now
            )
            return
        self._send(data, "password", self._password_sent)

    def _password_sent(self, now: float) -> None:
        self._expect(now + self.config.data_s, self._password_unanswered)

    def _password_unanswered(self, now: float) -> None:
        self._fail(Fault.SILENT, "The meter did not answer the password; it is not sent again by itself.", now)

    def _password_answer(self, message: iec.Message | iec.Damaged, now: float) -> None:
        match message:
            case iec.Acknowledge():
                self._ready()
            case iec.ErrorMessage(text):
                self._refused(text, now)
            case iec.Refuse():
                self._refused(REFUSAL, now)
            case iec.Damaged(_, check) if not check.is_good:
                self._refused("its answer cannot be read", now)
            case _:
                pass

    def _refused(self, text: str, now: float) -> None:
        self._out.append(PasswordRefused(text))
        self._end(now)

    def _nothing_asked(self, _message: iec.Message | iec.Damaged, _now: float) -> None:
        """A message in PROG_READY."""

    def _send_command(self, _now: float) -> None:
        command = self._command
        assert command is not None
        self._tries += 1
        self._send(iec.encode(command), f"{command.name}{command.kind}", self._command_sent)

    def _command_sent(self, now: float) -> None:
        self._expect(now + self.config.data_s, self._no_answer)

    def _command_answer(self, message: iec.Message | iec.Damaged, now: float) -> None:
        is_read = self._command is not None and self._command.name == "R"
        match message:
            case iec.Data(text, more):
                self._answer.append(text)
                self._answer_size += len(text)
                self._naks, self._damage = 0, None
                if more:
                    self._reply(self._send_acknowledge, now)
                else:
                    self._answered("".join(self._answer))
            case iec.Acknowledge() if not is_read:
                self._answered(None)
            case iec.ErrorMessage(text):
                self._move(Move.READY)
                self._out.append(MeterError(text))
            case iec.Refuse() if is_read and not self._refusals:  # it may have been damaged on its way
                self._refusals += 1
                self._reply(self._send_command, now)
            case iec.Refuse():
                self._move(Move.READY)
                self._out.append(MeterError(REFUSAL))
            case iec.Damaged(sentence, check) if not check.is_good:
                self._bad(Fault.CHECK, sentence, b"", now)
            case _:
                pass

    def _answered(self, text: str | None) -> None:
        self._move(Move.READY)
        self._out.append(Answered(text))

    def _send_acknowledge(self, _now: float) -> None:
        self._send(iec.ACK, "next block", self._command_sent)

    def _no_answer(self, now: float) -> None:
        command = self._command
        assert command is not None
        is_repeatable = command.name == "R" and not self._answer
        if self._damage is not None:
            self._give_up_block(now)
        elif is_repeatable and self._tries <= self.config.repeats:
            self._wait(now + self.timing.repeat_s, self._send_command, now)
        else:
            what = "the next block" if self._answer else f"{command.name}{command.kind}"
            self._fail(Fault.SILENT, f"The meter did not answer {what} in programming mode.", now)

    # ------------------------------------------------------------ octets as they are

    def _raw_sent(self, now: float) -> None:
        self._expect(now + self._raw_wait, self._raw_over)

    def _raw_heard(self, data: bytes, now: float) -> None:
        self._raw += data
        if len(self._raw) > MAX_RAW:
            self._raw_over(now)
        else:
            self._expect(now + self.timing.gap_s, self._raw_over)

    def _raw_over(self, now: float) -> None:
        self._out.append(RawAnswer(bytes(self._raw)))
        self._end(now)

    # ------------------------------------------------------------ listening, mode D

    def _listened(self, data: bytes, now: float) -> None:
        rest: bytes | None = data
        while rest and self.state is State.LISTENING:
            if self._block is not None:
                rest = self._listen_to_block(rest, now)
                continue
            self._framer.feed(rest)
            rest = None
            while self.state is State.LISTENING and (found := self._framer.next()) is not None:
                self._heard(found, now)
                if isinstance(found.message, Identification):
                    rest = self._framer.take_rest()
                    self._block = _Block()
                    break
        if self.state is State.LISTENING:
            is_inside = self._block is not None or self._framer.pending
            self._expect(now + self.timing.gap_s if is_inside else self._patience, self._listening_paused)

    def _listen_to_block(self, data: bytes, now: float) -> bytes | None:
        """After an identification: data without a frame (mode D), or the messages of others."""
        block = self._block
        assert block is not None
        if not (bytes(block.data) + data).strip(b"\0\r\n"):
            block.feed(data)
            return None
        if not block.data.strip(b"\0\r\n") and data.lstrip(b"\0\r\n")[:1] in _OTHERS:
            self._block = None
            return data
        _sets, rest = block.feed(data)
        if rest is not None or len(block.data) > self.config.max_octets:
            self._block_listened(block, now)
        return rest

    def _block_listened(self, block: _Block, now: float) -> None:
        self._block = None
        data = bytes(block.data)
        if block.is_terminated or block.has_check:
            self._out.append(BlockReceived(data, iec.check_of(data)))
            if self._patience is not None:
                self._end(now)
        elif data.strip(b"\0\r\n"):
            sentence = f"A message breaks off after {len(data)} octets."
            self._out.append(Heard(iec.Damaged(sentence, BlockCheck(Verdict.CUT)), len(data)))

    def _heard(self, found: iec.Incoming, now: float) -> None:
        message = found.message
        if isinstance(message, Identification):
            self._out.append(Identified(message, message.mode))
        elif isinstance(message, iec.Data) and message.text.rstrip("\r\n").endswith("!"):
            framed = iec.encode(message)
            self._out.append(BlockReceived(framed, iec.check_of(framed)))
            if self._patience is not None:
                self._end(now)
        else:
            self._out.append(Heard(message, found.length - len(found.skipped)))

    def _listening_paused(self, now: float) -> None:
        if self._block is not None:
            self._block_listened(self._block, now)
        elif (cut := self._framer.take_rest()) == iec.ACK:
            self._out.append(Heard(iec.Acknowledge(), len(cut)))
        elif cut:
            damaged = iec.Damaged(f"A message breaks off after {len(cut)} octets.", BlockCheck(Verdict.CUT))
            self._out.append(Heard(damaged, len(cut)))
        if self.state is State.LISTENING:
            self._expect(self._patience, self._nothing_heard)

    def _nothing_heard(self, now: float) -> None:
        self._fail(
            Fault.SILENT, "The meter sent nothing by itself. A mode D meter sends every few seconds or when a key is "
            "pressed; check the head's place, the rate and the format.", now,
        )  # fmt: skip

    # ------------------------------------------------------------ octets by state

    def _octets(self, data: bytes, now: float) -> None:
        heard = _ON_OCTETS.get(self.state)
        is_before_ours = self._on_sent is not None or (
            not self._is_expecting and (self._damage is not None or self.state in _ASKING)
        )
        if heard is not None and data and not is_before_ours:
            heard(self, data, now)


REFUSAL: Final = "NAK"
_ASKING: Final = (State.PROG_AUTH, State.PROG_WAIT_ANSWER)  # what comes before our octets have left answers nothing
ENDED_BY_METER: Final = "The meter ended the conversation with a break. Ask again."
_OTHERS: Final = (iec.SOH, iec.STX, iec.ACK, iec.NAK, b"/")
_CHARACTERS: Final[Mapping[int, str]] = MappingProxyType({rate: char for char, rate in iec.BAUD_MODE_C.items()})
_RATES: Final[Mapping[str, int]] = MappingProxyType({**iec.BAUD_MODE_C, **iec.BAUD_MODE_B})
_Listener: TypeAlias = Callable[[Session, bytes, float], None]
_ON_OCTETS: Final[Mapping[State, _Listener]] = MappingProxyType(
    {
        State.WAIT_IDENT: Session._ident_heard,
        State.WAIT_ECHO: Session._confirmation_heard,
        State.WAIT_DATA: Session._block_heard,
        State.READOUT: Session._block_heard,
        State.PROG_WAIT_P0: Session._message_heard,
        State.PROG_AUTH: Session._message_heard,
        State.PROG_READY: Session._message_heard,
        State.PROG_WAIT_ANSWER: Session._message_heard,
        State.LISTENING: Session._listened,
        State.RAW: Session._raw_heard,
    }
)  # octets in other states belong to nothing that was asked
_PROGRAMMING: Final[Mapping[State, Callable[[Session, iec.Message | iec.Damaged, float], None]]] = MappingProxyType(
    {
        State.PROG_WAIT_P0: Session._operand,
        State.PROG_AUTH: Session._password_answer,
        State.PROG_READY: Session._nothing_asked,
        State.PROG_WAIT_ANSWER: Session._command_answer,
    }
)


def _likely(strange: bytes) -> str:
    """What octets may be that came instead of an identification, and what to do."""
    is_text = len(strange) >= SHORTEST and 4 * len(plain(strange).translate(None, _TEXT)) <= len(strange)
    if is_text and has_parity(strange):
        return "They look like 7E1 that the port gives as 8N1: choose parity by software in the connection."
    if is_text:
        return (
            "They are text, so rate and format are right: the meter may still send something else, or another device "
            "talks on this line. Wait until it is silent and try again."
        )
    return (
        "Likely causes: another rate or format (Detect tries the usual ones), parity that the port does not do (choose "
        "it by software), or light and disturbance at the optical head."
    )


def _too_long(limit: int) -> str:
    return f"The answer does not end: more than {limit >> 20} MiB came. Ask for less, or check the rate."
