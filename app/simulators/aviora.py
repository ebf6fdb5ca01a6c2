"""An Aviora gateway (protocol ZD) with IEC 62056-21 meters behind it: push client, pull server, jobs, quirks, faults.

Source of the rules: aviora-protocolzd.md; section numbers below are its own, and where it says *observed* that holds.
What the gateway reads and writes comes from ``protocols.aviora_device``. Where nothing is said, the choice made stands
in a comment beginning with "Choice:". All times are simulated: ``AvioraConfig.time_scale`` makes them short, a
``SimClock(time_scale=0)`` lets a test step through them.
"""

from __future__ import annotations

import asyncio
import ftplib
import ipaddress
import re
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Self

from app.errors import ConfigError, LinkError, LinkReason
from app.protocols import aviora, aviora_device
from app.protocols.aviora import Device, FtpAddress, Function
from app.protocols.aviora_stream import ETX, STX
from app.simulators._http import (
    HOST,
    FaultKind,
    Faults,
    SimClock,
    abort,
    count,
    fault_help,
    is_name,
    is_seconds,
    read_extra,
    reset,
    seconds,
    tcp_port,
    yes,
)
from app.simulators.catalog import Announce, SimOptions

ATTEMPT_S: Final = 10.0  # section 6: a connect attempt of an unregistered gateway; 8.6: waiting for push with a result
AT_ONCE_S: Final = 0.2  # section 10: a registered gateway connects again
REAL_PAUSE_S: Final = 0.02  # so that a fast clock does not make it connect more often than this
LOOK_S: Final = 0.05  # from a read to the look at the slot, and from there to the answer (section 10: 0.05 to 0.3 s)
CLOSE_PULL_S: Final = 0.2  # 8.4: the pull client reads end-of-file
CLOSE_PUSH_S: Final = 1.0  # 8.4: after that, the push connection is closed
MOVE_S: Final = 0.6  # 8.4: 1.8 s in all until it connects to the new server
FTP_STEP_S: Final = 20.0  # 8.5
FTP_STEP_LEAST_S: Final = 1.0  # in real seconds, however fast the clock
MAX_IMAGE: Final = 64 << 20  # Choice: a larger image is given up
MAX_PROFILE_ROWS: Final = 6000  # Choice: a meter gives 62 days of quarter-hours at most
QUARTER: Final = timedelta(minutes=15)
PROFILE_ZERO: Final = datetime(2026, 7, 1)  # noqa: DTZ001 - a meter's clock has no zone; the curve of S17 starts here
GARBAGE: Final = b"/?!\r\n\x00\xfe"  # 3.1 rule 2: meter commands on a socket that is no meter
FOREIGN: Final = b"\x9e\x00\x11heap\x00\xc3\x07directives\x00"  # 8.8: what stands behind the buffer
READS_KEPT: Final = 1000
LOG_LINES: Final = 60


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,4}", text) is not None


GATEWAY_FAULTS: Final[Mapping[str, FaultKind]] = {
    # scope: pull, push, pull/readout, push/alive, ..., a function (readout), or a meter's serial
    "silence": FaultKind("pull: nothing is carried out or answered; push: the ident, alive or result is not sent"),
    "nack": FaultKind("pull: refused, nothing is carried out"),
    "close": FaultKind("pull: closed without an answer, nothing is carried out"),
    "lose-answer": FaultKind("pull: carried out, not answered"),
    "open-list": FaultKind("the last object of a directive list says that more follow"),
    # bytes of both channels
    "cut": FaultKind("half of the object is missing for good; what comes next follows at once"),
    "split": FaultKind("written in pieces of this many bytes", "1", _is_number),
    "merge": FaultKind("all packets in one write; a result has an alive before it"),
    "garbage": FaultKind("meter commands and other bytes before the object"),
    "endless": FaultKind("an object of this many KiB that does not end, in place of the answer", "128", _is_number),
    "slow": FaultKind("each object comes this many seconds late", "20", is_seconds),
    "wrong-serial": FaultKind("claims to be the gateway of this serial", "AVI2026079999", is_name),
    # meter jobs and their results
    "meter-silent": FaultKind("the meter does not answer: no message at all"),
    "other-meter": FaultKind("another meter of the line answers"),
    "nul": FaultKind("the meter sends a NUL after this many bytes of the text", "350", _is_number),
    "late": FaultKind("the result comes this many seconds late", "200", is_seconds),
    "behind-next": FaultKind("the result waits until the gateway has taken its next job"),
    "duplicate": FaultKind("the result is sent twice"),
    "flood": FaultKind("the result is sent so many times, without waiting", "100", _is_number),
    "lose-packet": FaultKind("packet of this number is left out", "2", _is_number),
    "reorder": FaultKind("the last two packets of a result are exchanged"),
    "drop-push": FaultKind("push is closed in the middle of the result"),
    # push as a whole
    "storm": FaultKind("push is connected and closed so many times a second, for ever", "5", _is_number, lasting=True),
}  # fmt: skip
FAULTS: Final[Mapping[str, str]] = fault_help(GATEWAY_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""


# --------------------------------------------------------------------------------------------------------------- meters


@dataclass(frozen=True, slots=True, kw_only=True)
class LineMeter:
    """A meter on the gateway's line.

    ``data``: the rows of its readout, each ended by CR LF, without the ``!`` line; None: those of vector S13, with this
    serial, its energy growing by ``load_kw``, and ``months`` stored values. ``is_framed``: STX, ETX and block check.
    """

    serial: str
    identification: bytes = rb"/LGZ5\2ZMG405000b.P07"
    data: bytes | None = None
    energy_kwh: Decimal = Decimal("2345.678")
    load_kw: Decimal = Decimal("0.7")
    months: int = 12
    is_framed: bool = False

    def readout(self, now: datetime, running_s: float) -> bytes:
        """What the meter sends after the sign-on; ``running_s`` since its energy was ``energy_kwh``."""
        return self._sent(self._rows(now, running_s) if self.data is None else self.data)

    def profile(self, start: str, end: str) -> bytes | None:
        """What it sends to ``P.01``; dates YYMMDDhhmm. None: it does not answer, there is no such date."""
        try:
            begin, stop = (datetime.strptime(text, "%y%m%d%H%M") for text in (start, end))  # noqa: DTZ007 - no zone
        except ValueError:
            return None
        first = -((PROFILE_ZERO - begin) // QUARTER)  # the first quarter-hour at or after the start
        last = min(-((PROFILE_ZERO - stop) // QUARTER), first + MAX_PROFILE_ROWS)
        shown = PROFILE_ZERO + first * QUARTER
        rows = [f"P.01({shown:%y%m%d%H%M})(00000000)(15)(2)(1.5.0)(kW)(5.5.0)(kvar)\r\n"]
        for at in range(first, last):
            active, reactive = 1000 + 370 * at % 4000, 130 * at % 900
            rows.append(f"({_thousandths(active)})({_thousandths(reactive)})\r\n")
        return self._sent("".join(rows).encode("ascii"))

    def _rows(self, now: datetime, running_s: float) -> bytes:
        total = self.energy_kwh + self.load_kw * Decimal(round(running_s)) / 3600
        second, third = Decimal("777.333"), Decimal("457.123")
        rows = [
            "F.F(00)",
            f"0.0.0({self.serial})",
            f"0.9.1({now:%H:%M:%S})",
            f"0.9.2({now:%y-%m-%d})",
            f"1.8.0({total:010.3f}*kWh)",
            f"1.8.1({total - second - third:010.3f}*kWh)",
            f"1.8.2({second:010.3f}*kWh)",
            f"1.8.3({third:010.3f}*kWh)",
            "2.8.0(000000.000*kWh)",
            "5.8.0(000123.456*kvarh)",
            "8.8.0(000001.234*kvarh)",
            "1.6.0(003.456*kW)(26-07-01 18:15)",
            "32.7.0(229.9*V)",
            "52.7.0(230.4*V)",
            "72.7.0(231.0*V)",
            "31.7.0(001.23*A)",
            "51.7.0(000.98*A)",
            "71.7.0(001.01*A)",
            "14.7.0(50.0*Hz)",
            f"C.1.0({self.serial})",
            "96.71(260701 1200)",
            "96.77.0*1(2601010000)(2601010130)",
        ]
        stored = (self.energy_kwh - Decimal("7.250") * month for month in range(self.months))
        rows += [f"1.8.0*{number:02}({value:010.3f}*kWh)" for number, value in enumerate(stored, 1)]
        return "".join(f"{row}\r\n" for row in rows).encode("latin-1")

    def _sent(self, rows: bytes) -> bytes:
        data = rows + b"!\r\n"
        if not self.is_framed:
            return data
        check = ETX
        for byte in data:
            check ^= byte
        return bytes((STX,)) + data + bytes((ETX, check))


def _thousandths(value: int) -> str:
    return f"{value // 1000:03}.{value % 1000:03}"


def line_meters(number: int, *, months: int = 12, is_framed: bool = False) -> tuple[LineMeter, ...]:
    """So many meters, the first one that of the vectors (23660088), the others counted on from it."""
    return tuple(
        LineMeter(
            serial=str(23660088 + at),
            energy_kwh=Decimal("2345.678") + 100 * at,
            months=months,
            is_framed=is_framed,
            identification=rb"/LGZ5\2ZMG405000b.P07" if at == 0 else rb"/MKL5<1>C500.T%02d" % (at % 100),
        )
        for at in range(number)
    )


class JobState(StrEnum):
    """What became of a meter job. The wire tells ``SENT`` only."""

    WAITING = "waiting"
    SENT = "sent"
    FAILED = "failed"  # the meter did not answer
    DROPPED = "dropped"  # push was down
    DISCARDED = "discarded"  # first-job rule


@dataclass(slots=True, kw_only=True)
class Job:
    """A readout or load profile (8.6, 8.7); ``start`` and ``end`` YYMMDDhhmm."""

    number: int
    function: Function
    meter: str
    start: str = ""
    end: str = ""
    is_lost: bool = False
    state: JobState = JobState.WAITING


@dataclass(frozen=True, slots=True)
class _MeterData:
    """What a job brought; ``text`` as the revision passes it on."""

    job: Job
    identification: bytes
    text: bytes


def _as_revision_a(data: bytes) -> tuple[bytes, bool]:
    """Rows with LF up to the ``!`` line, without it (section 4 rule 7); whether bytes stay unread behind it."""
    kept = bytearray()
    rest = data
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        if line == b"!":
            break
        kept += line + b"\n"
    return bytes(kept), bool(rest)


# ------------------------------------------------------------------------------------------------------------- firmware


@dataclass(slots=True)
class Update:
    """A firmware order that was not ignored. ``outcome`` is "" until it is done: stored, or failed and why."""

    address: str = field(repr=False)
    outcome: str = ""
    data: bytes = field(default=b"", repr=False)


def read_ftp_address(address: str) -> FtpAddress | None:
    """As the gateway reads it (8.5): login ends at the first ``@``, what is too long is cut; None: no FTP address."""
    if not address.startswith("ftp://"):
        return None
    rest = address.removeprefix("ftp://")
    login, at, behind = rest.partition("@")
    user, _, password = login.partition(":") if at else ("anonymous", "", "")
    place, _, path = (behind if at else rest).partition("/")
    host, _, port = place.partition(":")
    if not re.fullmatch(r"[0-9]{0,5}", port):
        return None
    return FtpAddress(
        host[: aviora.MAX_FTP_HOST_CHARS],
        ("/" + path)[: aviora.MAX_FTP_PATH_CHARS],
        int(port or 21),
        user[: aviora.MAX_FTP_LOGIN_CHARS],
        password[: aviora.MAX_FTP_LOGIN_CHARS],
    )


class _Download(ftplib.FTP):
    """One FTP session of 8.5: ``fetch`` runs in a thread, ``abort_from_outside`` ends it within its next step."""

    def __init__(self, address: FtpAddress, step_s: float) -> None:
        super().__init__(timeout=step_s)
        self._address = address
        self._data: socket.socket | None = None
        self._is_aborted = False
        self.is_login_refused = False

    def fetch(self) -> bytes:
        """The image. Raises OSError, EOFError, ValueError or ftplib.Error."""
        try:
            self.connect(self._address.host, self._address.port)
            try:
                self.login(self._address.user, self._address.password)
            except ftplib.Error:
                self.is_login_refused = True
                raise
            self.voidcmd("TYPE I")
            with self.transfercmd(f"RETR {self._address.path}") as self._data:
                self._check()
                image = bytearray()
                while piece := self._data.recv(65536):
                    image += piece
                    if len(image) > MAX_IMAGE:
                        raise ValueError("the image is too large")
            self._check()
            return bytes(image)
        finally:
            self.close()  # without QUIT

    def getresp(self) -> str:
        self._check()
        return super().getresp()

    def _check(self) -> None:
        """Every wait is behind this; a socket that is there by then is shut down by ``abort_from_outside``."""
        if self._is_aborted:
            raise EOFError

    def abort_from_outside(self) -> None:
        self._is_aborted = True
        for sock in (self.sock, self._data):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


# -------------------------------------------------------------------------------------------------------------- gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class AvioraConfig:
    """How a gateway stands at the start. ``*_s`` are simulated seconds, ``time_scale`` of them pass in a real one.

    ``push_host``, ``push_port``: the head-end, on this machine. ``pull_port`` 0: the system chooses.
    ``is_registered``: the stored flag (section 6); the gateway connects without a word then. ``knows_meters``: the
    meters of the line are in its index already. ``has_one_slot``: a message that comes too early is lost (3.2);
    ``has_first_job_nack``: 8.6. ``is_linux_build``: no log, only the meter added last can be removed, a refused FTP
    login blocks further updates. ``pull_ip`` is told by revision A only. ``device_date``: what its clock shows, ""
    the simulated time.
    """

    serial: str = "AVI2026070001"
    push_host: str = HOST
    push_port: int = aviora.PUSH_PORT
    pull_port: int = 0
    revision: str = "B"
    is_registered: bool = False
    meters: tuple[LineMeter, ...] = field(default_factory=lambda: line_meters(1))
    knows_meters: bool = True
    has_one_slot: bool = True
    has_first_job_nack: bool = True
    is_linux_build: bool = False
    pull_ip: str = HOST
    device_date: str = ""
    alive_s: float = aviora.ALIVE_PERIOD_S
    ident_answer_s: float = aviora.IDENT_ANSWER_S
    reconnect_s: float = aviora.RECONNECT_S
    result_ack_s: float = aviora.RESULT_ACK_S
    idle_s: float = 7200.0  # section 2, revision B; the documentation says 360
    job_s: float = 1.0
    time_scale: float = 1.0
    faults: tuple[str, ...] = ()


_FUNCTIONS: Final[Mapping[type, Function]] = {
    aviora_device.LogWanted: Function.LOG,
    aviora_device.Setting: Function.SETTING,
    aviora_device.UpdateWanted: Function.FW_UPDATE,
    aviora_device.ReadoutWanted: Function.READOUT,
    aviora_device.ProfileWanted: Function.LOAD_PROFILE,
    aviora_device.ListWanted: Function.DIRECTIVE_LIST,
    aviora_device.StoreWanted: Function.DIRECTIVE_ADD,
    aviora_device.DeleteWanted: Function.DIRECTIVE_DELETE,
}


def is_here(host: str) -> bool:
    """Whether ``host`` is an address of this machine; a simulator goes to no other."""
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AvioraGatewaySimulator:
    """The gateway: ``async with AvioraGatewaySimulator(AvioraConfig(push_port=...)) as sim``.

    It connects to the head-end by itself; ``sim.pull_port`` takes requests. To look at: ``is_registered``,
    ``is_push_up``, ``server``, ``reads`` (each read of pull, as it came), ``jobs`` in the order of their acceptance,
    ``stored`` (meters by serial), ``directives`` (id -> text), ``log_lines``, ``updates``, ``firmware`` (the last image
    stored), ``connects``, ``idents``, ``alives``, ``lost_answers``. Change them and the faults from the loop that runs
    the simulator.

    Raises:
        ConfigError: unknown revision, a head-end that is not on this machine, or (on entering) a wrong fault.
        LinkError: (on entering) the pull port cannot be opened.
    """

    name: Final = "aviora"
    host: Final = HOST

    def __init__(self, config: AvioraConfig | None = None, *, clock: SimClock | None = None) -> None:
        self.config = config = config or AvioraConfig()
        if config.revision not in ("A", "B"):
            raise ConfigError("There is no such revision.", key="revision", expected="A or B")
        if not is_here(config.push_host):
            raise ConfigError("A simulator goes to this machine only.", key="push", expected="an address of 127.*")
        self.clock = clock or SimClock(time_scale=config.time_scale)
        self.faults = Faults(GATEWAY_FAULTS, self._faults_changed)
        self.pull_port = config.pull_port
        self.server = (config.push_host, config.push_port)
        self.is_registered = config.is_registered
        self.line = {meter.serial: meter for meter in config.meters}
        known = config.meters if config.knows_meters else ()
        self.stored = {meter.serial: aviora_device.MeterOperation("add", meter.serial) for meter in known}
        self.directives: dict[str, bytes] = {}
        self.log_lines: deque[str] = deque(maxlen=LOG_LINES)
        self.reads: deque[bytes] = deque(maxlen=READS_KEPT)
        self.read_count = 0
        self.jobs: list[Job] = []
        self.updates: list[Update] = []
        self.firmware: bytes | None = None
        self.connects = self.idents = self.alives = self.lost_answers = 0
        self._added_last = next(reversed(self.stored), "")
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self._download: _Download | None = None
        self._forget()

    def _forget(self) -> None:
        """What a restart loses."""
        self._client: asyncio.StreamWriter | None = None
        self._push: asyncio.StreamWriter | None = None
        self._push_writing = asyncio.Lock()
        self._heard = 0  # reads of push
        self._inbox: deque[bytes] = deque()
        self._next_job = 0
        self._taken: list[Job] = []  # the job slots in use
        self._waiting: deque[Job] = deque()
        self._results: deque[_MeterData] = deque()
        self._is_line_spoiled = False
        self._is_moving = False
        self._is_update_stuck = False

    # -- life

    async def __aenter__(self) -> Self:
        for spec in self.config.faults:
            self.faults.set(spec)
        await self._listen()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(self._cancel)
            self._start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _listen(self) -> None:
        try:
            self._listener = await asyncio.start_server(self._accept, self.host, self.pull_port)
        except OSError as exc:
            raise LinkError(
                f"The simulator cannot listen on {self.host}:{self.pull_port} ({exc.strerror}). "
                "Choose another pull_port, or 0 for a free one.",
                LinkReason.BUSY,
                may_have_arrived=False,
            ) from exc
        self.pull_port = self._listener.sockets[0].getsockname()[1]

    def _start(self) -> None:
        self._note("Protocol ZD started")
        self._spawn(self._push_loop(), "push")
        self._spawn(self._main_loop(), "main")
        self._spawn(self._line_loop(), "line")
        self._spawn(self._alive_loop(), "alive")

    def _cancel(self) -> None:
        self._group = None  # whoever comes now is turned away
        if self._listener is not None:
            self._listener.close()
        if self._download is not None:
            self._download.abort_from_outside()
        for task in list(self._tasks):
            task.cancel()

    async def _stop(self) -> None:
        self._group = None
        if self._listener is not None:
            self._listener.close()
        self._cut_all()
        for _ in range(2):  # transports close their sockets in the loop's next rounds
            await asyncio.sleep(0)

    def _keep(self, writer: asyncio.StreamWriter) -> None:
        """Remember a connection until all of it is written and closed."""
        links = ((one, one.transport) for one in self._writers)
        self._writers = {one for one, link in links if not link.is_closing() or link.get_write_buffer_size()} | {writer}

    def _cut_all(self) -> None:
        for writer in list(self._writers):
            abort(writer)
        self._writers.clear()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._group is None:
            work.close()
            raise RuntimeError("the simulator is not running")
        task = self._group.create_task(work, name=f"{self.name}:{self.config.serial}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what tests and the demo ask and do

    @property
    def url(self) -> str:
        """Where it takes requests."""
        return f"tcp://{self.host}:{self.pull_port}"

    @property
    def is_push_up(self) -> bool:
        """Connected to the head-end and registered there."""
        return self._push is not None

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at after every read, write, job and change. No deadline."""
        while not condition():
            await self._changed.wait()

    async def restart(self) -> None:
        """Power off and on: connections, jobs and updates under way are gone, all that is stored stays."""
        if self._download is not None:
            self._download.abort_from_outside()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._cut_all()
        self._forget()
        if self._listener is None or not self._listener.is_serving():  # a change of the server was under way
            await self._listen()
        self._start()
        self._notify()

    def drop_push(self) -> None:
        """Close the push connection; the gateway connects again by itself."""
        if self._push is not None:
            self._push.close()

    async def send_alive(self) -> None:
        """Send an alive now, if push is up."""
        places = _push_places(Function.ALIVE)
        async with self._push_writing:
            if self._push is None or self.faults.take("silence", *places) is not None:
                return
            await self._say(self._push, [self._alive()], places)
            self.alives += 1
            self._notify()

    # -- helpers

    def _notify(self) -> None:
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()

    def _faults_changed(self) -> None:
        if self.faults.value("storm") is not None:
            self.drop_push()
        self._notify()

    def _note(self, text: str) -> None:
        self.log_lines.append(f"{self.clock.now:%Y%m%d %H:%M:%S} - {text}")
        self._notify()

    async def _wait(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Whether the condition came to hold within so many simulated seconds."""
        async with asyncio.TaskGroup() as group:
            alarm = group.create_task(self._alarm(limit_s))
            while not condition() and not alarm.done():
                await self._changed.wait()
            alarm.cancel()
        return condition()

    async def _alarm(self, after_s: float) -> None:
        await self.clock.sleep(after_s)
        self._notify()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> bytes:
        """One read; b"" at the end, however it came."""
        try:
            return await reader.read(aviora_device.READ_BYTES)
        except OSError:
            return b""

    async def _read_within(self, reader: asyncio.StreamReader, limit_s: float) -> bytes:
        """One read; b"" at the end or after so many simulated seconds."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._read(reader))
            task.add_done_callback(lambda _: self._notify())
            if not await self._wait(task.done, limit_s):
                task.cancel()
        return b"" if task.cancelled() else task.result()

    def _device(self, places: Sequence[str]) -> Device:
        return Device(self.faults.take("wrong-serial", *places) or self.config.serial)

    @property
    def _date(self) -> str:
        return self.config.device_date or f"{self.clock.now:%Y-%m-%d %H:%M:%S}"

    def _alive(self) -> bytes:
        return aviora_device.say(self._device(_push_places(Function.ALIVE)), aviora.Alive(self._date))

    async def _say(self, writer: asyncio.StreamWriter, objects: Sequence[bytes], places: Sequence[str]) -> None:
        """One send per object, with the faults of the wire. A peer that is gone is no error: its reader tells."""
        if (kib := self.faults.take("endless", *places)) is not None:
            objects = [_endless(objects[0], int(kib) << 10)]
        if self.faults.take("merge", *places) is not None:
            objects = [b"".join(objects)]
        with suppress(OSError):
            for data in objects:
                if self.faults.take("garbage", *places) is not None:
                    data = GARBAGE + data
                if self.faults.take("cut", *places) is not None:
                    data = data[: len(data) // 2]
                if (late := self.faults.take("slow", *places)) is not None:
                    await self.clock.sleep(float(late))
                step = int(self.faults.take("split", *places) or len(data))
                for at in range(0, len(data), step):
                    writer.write(data[at : at + step])
                    await writer.drain()
                    await asyncio.sleep(0)

    # -- push

    async def _push_loop(self) -> None:
        """Section 6."""
        while True:
            await self.wait_until(lambda: not self._is_moving)
            link = await self._connect()
            if link is None:
                await self._pause(AT_ONCE_S if self.is_registered else ATTEMPT_S + self.config.reconnect_s)
                continue
            reader, writer = link
            self._keep(writer)
            try:
                if self.is_registered or await self._introduce(reader, writer):
                    self._push = writer
                    self._notify()
                    await self._hear(reader)
            finally:
                self._push = None
                writer.close()
                self._notify()
            await self._pause(AT_ONCE_S if self.is_registered else self.config.reconnect_s)

    async def _pause(self, pause_s: float) -> None:
        if (rate := self.faults.value("storm")) is not None and self.is_registered:
            pause_s = 0.5 / int(rate)
        await self.clock.sleep(pause_s)
        await asyncio.sleep(REAL_PAUSE_S)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        link = None
        if is_here(self.server[0]):  # Choice: any other head-end is one that does not answer
            with suppress(OSError):
                async with asyncio.timeout(ATTEMPT_S):
                    link = await asyncio.open_connection(*self.server)
        if link is None:
            failure = "[E]AppTcpConnMngr: Push socket connection failed"
            if not self.log_lines or not self.log_lines[-1].endswith(failure):
                self._note(failure)
            return None
        _without_delay(link[1])
        self.connects += 1
        self._note("[I]AppTcpConnMngr: TCP Connection task created !")
        self._notify()
        return link

    async def _introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the first bytes of the head-end accept the gateway."""
        places = _push_places(Function.IDENT)
        if self.faults.take("silence", *places) is None:
            pull_ip = self.config.pull_ip if self.config.revision == "A" else ""
            ident = aviora.Ident(False, aviora.FLAG, "AVIO2622", self._date, pull_ip, self.pull_port)
            await self._say(writer, [aviora_device.say(self._device(places), ident)], places)
            self.idents += 1
            self._notify()
        answer = await self._read_within(reader, self.config.ident_answer_s)
        if not aviora_device.read_registration(answer):
            return False
        self.is_registered = True
        self._note("Device registered")
        return True

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """Until push is closed; what comes is not looked at, but ends a wait for ack."""
        if (rate := self.faults.value("storm")) is not None:
            await self._read_within(reader, 0.5 / int(rate))
            return
        while await self._read(reader):
            self._heard += 1
            self._notify()

    async def _alive_loop(self) -> None:
        """8.2: counted from registration or start, skipped where push is down."""
        await self.wait_until(lambda: self.is_registered)
        due = self.clock.elapsed
        while True:
            due += self.config.alive_s
            await self.clock.sleep(max(due - self.clock.elapsed, 0))
            await self.send_alive()

    # -- pull

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._group is None or self._client is not None:
            reset(writer)  # section 2: one client at a time
            return
        _without_delay(writer)
        self._client = writer
        self._keep(writer)
        self._spawn(self._serve_client(reader, writer), "pull")

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """3.2: what one read brings is one message, and there is room for one."""
        try:
            while data := await self._read_within(reader, self.config.idle_s):
                if self.config.has_one_slot:
                    self._inbox.clear()
                self._inbox.append(data)
                self.reads.append(data)
                self.read_count += 1
                self._notify()
        finally:
            if self._client is writer:
                self._client = None
            writer.close()
            self._notify()

    async def _main_loop(self) -> None:
        """One thing at a time: a result and the wait for its ack, or a request. Choice: results come first."""
        await self.wait_until(lambda: self.is_registered)
        while True:
            await self.wait_until(lambda: bool(self._results or self._inbox))
            if self._results:
                await self._deliver(self._results.popleft())
                continue
            await self.clock.sleep(LOOK_S)
            data = self._inbox.popleft()
            await self.clock.sleep(LOOK_S)
            if self.config.has_one_slot:
                self._inbox.clear()
            await self._handle(data)
            self._notify()

    async def _handle(self, data: bytes) -> None:
        wanted: aviora_device.Wanted | None = None
        with suppress(aviora_device.Refused):
            wanted = aviora_device.read_request(data)
        places = _pull_places(wanted)
        if self.faults.take("silence", *places) is not None:
            return
        if self.faults.take("close", *places) is not None:
            self._close_client()
            return
        if wanted is None or self.faults.take("nack", *places) is not None:
            await self._answer([self._plain(aviora.Nack(), places)], places)
            return
        if isinstance(wanted, aviora_device.Setting) and wanted.server is not None:
            self._change_meters(wanted)  # Choice: the meters of the same message first
            await self._change_server(wanted.server)
            return
        objects = self._carry_out(wanted, places)
        if self.faults.take("lose-answer", *places) is None:
            await self._answer(objects, places)
        if isinstance(wanted, aviora_device.UpdateWanted):
            self._start_update(wanted.address)

    async def _answer(self, objects: Sequence[bytes], places: Sequence[str]) -> None:
        """To whoever is the client by now (section 10)."""
        if self._client is None:
            self.lost_answers += 1
        else:
            await self._say(self._client, objects, places)

    def _plain(self, message: aviora.Ack | aviora.Nack, places: Sequence[str]) -> bytes:
        return aviora_device.say(self._device(places), message)

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()

    def _carry_out(self, wanted: aviora_device.Wanted, places: Sequence[str]) -> list[bytes]:
        """The objects of the answer."""
        done = True
        match wanted:
            case aviora_device.LogWanted():
                # Choice: a second request repeats the log.
                text = "".join(f"{line}\n" for line in self.log_lines).encode("latin-1")
                if self.config.is_linux_build or not text:
                    text = aviora.NO_LOG
                return aviora_device.say_text(self._device(places), Function.LOG, text)
            case aviora_device.Setting():
                done = self._change_meters(wanted)
            case aviora_device.ReadoutWanted(meter):
                done = self._queue(Function.READOUT, meter)
            case aviora_device.ProfileWanted(meter, start, end):
                done = self._queue(Function.LOAD_PROFILE, meter, start, end)
            case aviora_device.ListWanted(name):
                shown = [text for known, text in self.directives.items() if name in ("", known)]
                if objects := aviora_device.say_directives(self._device(places), shown, FOREIGN):
                    if self.faults.take("open-list", *places) is not None:
                        objects[-1] = objects[-1].replace(b'"packetStream":false', b'"packetStream":true', 1)
                    return objects
            case aviora_device.StoreWanted(name, stored):
                done = name in self.directives or len(self.directives) < aviora.MAX_DIRECTIVES
                if done:
                    self.directives[name] = stored
            case aviora_device.DeleteWanted(name):
                done = name == aviora.ALL_DIRECTIVES or name in self.directives
                for known in [known for known in self.directives if name in (aviora.ALL_DIRECTIVES, known)]:
                    del self.directives[known]
                    self._note("Directive deleted")
            case aviora_device.UpdateWanted():
                pass  # 8.5: acked before it is looked at
        return [self._plain(aviora.Ack() if done else aviora.Nack(), places)]

    def _change_meters(self, setting: aviora_device.Setting) -> bool:
        """8.4: all are tried, those that work stay. Whether all worked."""
        outcomes = [self._change_meter(operation) for operation in setting.operations]
        return all(outcomes)

    def _change_meter(self, operation: aviora_device.MeterOperation) -> bool:
        serial = operation.serial
        is_there = any(known.startswith(serial) for known in self.stored)  # 8.4: a prefix is enough
        match operation.operation:
            case "add" if not serial:
                return False
            case "add" if is_there:
                return self.config.revision == "A"
            case "add":
                self.stored[serial] = operation
                self._added_last = serial
                self._note("Meter added")
            case "remove" if not serial or not is_there:
                return False
            case "remove" if serial in self.stored:
                if self.config.is_linux_build and serial != self._added_last:
                    return False
                del self.stored[serial]
        return True

    async def _change_server(self, address: tuple[str, int]) -> None:
        """8.4, vector S31: no answer; pull closes, then push, then it goes to the new head-end."""
        self._note("Server address updated")
        await self.clock.sleep(CLOSE_PULL_S)
        if self._listener is not None:
            self._listener.close()
        self._close_client()
        await self.clock.sleep(CLOSE_PUSH_S)
        self._is_moving = True
        self.drop_push()
        self.server = address
        await self.clock.sleep(MOVE_S)
        await self._listen()
        self._is_moving = False

    def _start_update(self, text: str) -> None:
        address = read_ftp_address(text)
        if address is None or self._download is not None or self._is_update_stuck:
            return
        self._note("FW update started")
        update = Update(text)
        self.updates.append(update)
        if not is_here(address.host):
            update.outcome = "failed: the address is not on this machine"
            return
        step_s = FTP_STEP_S / max(self.config.time_scale, 1.0)
        self._download = _Download(address, max(step_s, FTP_STEP_LEAST_S))
        self._spawn(self._update(update, self._download), "update")

    async def _update(self, update: Update, download: _Download) -> None:
        try:
            update.data = self.firmware = await asyncio.to_thread(download.fetch)
            update.outcome = "stored"
        except (ftplib.Error, OSError, EOFError, ValueError) as exc:
            update.outcome = f"failed: {type(exc).__name__}"
            self._is_update_stuck = self.config.is_linux_build and download.is_login_refused
        finally:
            if self._download is download:
                self._download = None
            self._notify()

    # -- meter jobs

    def _queue(self, function: Function, meter: str, start: str = "", end: str = "") -> bool:
        """Whether the job is acked (8.6)."""
        if meter not in self.stored:
            self._note("AppMeterOpr: Readout Meter not found")
            return False
        if len(self._taken) >= aviora.DEVICE_JOB_SLOTS:
            return False
        is_lost = self._next_job == 0 and self.config.has_first_job_nack
        job = Job(number=self._next_job, function=function, meter=meter, start=start, end=end, is_lost=is_lost)
        self._next_job += 1
        self.jobs.append(job)
        self._taken.append(job)
        self._waiting.append(job)
        self._note("Readout task added" if function is Function.READOUT else "Profile task added")
        return not is_lost

    def _end(self, job: Job, state: JobState) -> None:
        job.state = state
        if not job.is_lost:  # the slot of the first job is gone until the next start
            self._taken.remove(job)
            self._note("Task freed")
        self._notify()

    async def _line_loop(self) -> None:
        """The meter line: one job after the other."""
        while True:
            await self.wait_until(lambda: bool(self._waiting))
            job = self._waiting.popleft()
            await self.clock.sleep(self.config.job_s)
            found = self._ask_meter(job)
            if (late := self.faults.take("late", *_push_places(job.function, job.meter))) is not None:
                await self.clock.sleep(float(late))
            if self.faults.take("behind-next", *_push_places(job.function, job.meter)) is not None:
                await self.wait_until(lambda: bool(self._waiting))
            if job.is_lost:
                self._end(job, JobState.DISCARDED)
            elif found is None or not found.text:
                self._end(job, JobState.FAILED)
            else:
                self._results.append(found)
                self._notify()

    def _ask_meter(self, job: Job) -> _MeterData | None:
        """What the meter of a job says, None when it says nothing.

        Choice: a meter that is stored but not on the line is silent; another one answers by the fault only.
        """
        places = _push_places(job.function, job.meter)
        meter = self.line.get(job.meter)
        if self.faults.take("other-meter", *places) is not None:
            meter = next((other for other in self.line.values() if other is not meter), None)
        is_spoiled, self._is_line_spoiled = self._is_line_spoiled, False
        if meter is None or is_spoiled or self.faults.take("meter-silent", *places) is not None:
            return None
        if job.function is Function.READOUT:
            data: bytes | None = meter.readout(self.clock.now, self.clock.elapsed)
        else:
            data = meter.profile(job.start, job.end)
        if data is None:
            return None
        if self.config.revision == "A":
            data, self._is_line_spoiled = _as_revision_a(data)
        if (place := self.faults.take("nul", *places)) is not None:
            data = data[: int(place)] + b"\0" + data[int(place) :]
        return _MeterData(job, meter.identification, data)

    async def _deliver(self, found: _MeterData) -> None:
        """8.6: send, then wait for any bytes; no pull is served meanwhile."""
        job = found.job
        places = _push_places(job.function, job.meter)
        if self.faults.take("silence", *places) is not None:
            self._end(job, JobState.DROPPED)
            return
        # Choice: a push that comes back within the wait gets the result.
        await self._wait(lambda: self._push is not None, ATTEMPT_S)
        if (push := self._push) is None:
            self._end(job, JobState.DROPPED)
            return
        packets = aviora_device.say_text(self._device(places), job.function, found.text, found.identification)
        if (number := self.faults.take("lose-packet", *places)) is not None:
            del packets[int(number) - 1 : int(number)]
        if len(packets) > 1 and self.faults.take("reorder", *places) is not None:
            packets[-2:] = reversed(packets[-2:])
        if self.faults.take("drop-push", *places) is not None:
            whole = b"".join(packets)
            await self._say(push, [whole[: len(whole) // 2]], places)
            push.close()
            self._end(job, JobState.DROPPED)
            return
        if self.faults.take("merge", *places) is not None:
            packets = [self._alive() + b"".join(packets)]
        times = int(self.faults.take("flood", *places) or 1)
        if self.faults.take("duplicate", *places) is not None:
            times += 1
        async with self._push_writing:
            for _ in range(times):
                if packets and not push.is_closing():
                    await self._say(push, packets, places)
        heard = self._heard
        await self._wait(lambda: self._heard != heard or self._push is not push, self.config.result_ack_s)
        self._end(job, JobState.SENT)


def _pull_places(wanted: aviora_device.Wanted | None) -> tuple[str, ...]:
    """Where faults of a request strike; None: it was not understood."""
    if wanted is None:
        return ("pull",)
    function = _FUNCTIONS[type(wanted)]
    places = (f"pull/{function}", function.value)
    if isinstance(wanted, aviora_device.ReadoutWanted | aviora_device.ProfileWanted):
        return (*places, wanted.meter)
    return places


def _push_places(function: Function, meter: str = "") -> tuple[str, ...]:
    return (f"push/{function}", function.value, meter)


def _endless(data: bytes, size: int) -> bytes:
    """The object without its end, filled up."""
    filler = b"1.8.0(000000.000*kWh)\r\n"
    begin = data.rstrip(b'"}')
    return begin + (filler * (size // len(filler) + 1))[: max(size - len(begin), 0)]


def _without_delay(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# --------------------------------------------------------------------------------------------------------- command line


def push_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``HOST``. Raises ValueError."""
    host, _, port = text.partition(":")
    number = tcp_port(port or str(aviora.PUSH_PORT))
    if not host or not number:
        raise ValueError(text)
    return host, number


def _device_serial(text: str) -> str:
    if not text or len(text) > aviora.MAX_DEVICE_SERIAL_CHARS or not is_name(text):
        raise ValueError(text)
    return text


_FIELDS: Final[Mapping[str, str]] = {
    "registered": "is_registered",
    "one_slot": "has_one_slot",
    "first_job_nack": "has_first_job_nack",
    "linux_build": "is_linux_build",
}  # setting of the command line -> AvioraConfig


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run a gateway until cancelled; see ``catalog.ServeFunction``. The port is that of pull.

    Known ``extra`` names: serial, push (HOST:PORT, default 127.0.0.1:8722), pull_port, revision (A or B), meters and
    months (counts), framed, registered, knows_meters, one_slot, first_job_nack, linux_build (yes or no), alive_s,
    job_s, idle_s, time_scale (numbers).
    """
    found = read_extra(
        options.extra,
        {
            "serial": _device_serial,
            "push": push_address,
            "pull_port": tcp_port,
            "revision": str.upper,
            "meters": count,
            "months": count,
            "framed": yes,
            "registered": yes,
            "knows_meters": yes,
            "one_slot": yes,
            "first_job_nack": yes,
            "linux_build": yes,
            "alive_s": seconds,
            "job_s": seconds,
            "idle_s": seconds,
            "time_scale": seconds,
        },
    )
    meters = line_meters(found.pop("meters", 2), months=found.pop("months", 12), is_framed=found.pop("framed", False))
    push_host, push_port = found.pop("push", (HOST, aviora.PUSH_PORT))
    config = replace(
        AvioraConfig(
            push_host=push_host, push_port=push_port, pull_port=options.port, meters=meters, faults=options.faults
        ),
        **{_FIELDS.get(name, name): value for name, value in found.items()},
    )
    async with AvioraGatewaySimulator(config) as sim:
        announce(
            {
                "sim": sim.name,
                "host": sim.host,
                "port": sim.pull_port,
                "url": sim.url,
                "serial": config.serial,
                "push": f"{push_host}:{push_port}",
                "meters": list(sim.line),
            }
        )
        await asyncio.get_running_loop().create_future()
