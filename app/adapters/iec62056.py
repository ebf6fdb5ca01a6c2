"""IEC 62056-21 meters on an optical head, RS-485 or TCP (specs/iec62056-and-dlms.md part A).

One instance owns one line and serves every meter on it, one command at a time; between two commands the line stands at
the initial format of the next meter. However a command ends, its conversation ends with a break; the next one begins
when the line is quiet. A connection that only listens sends nothing at all.

A password that a meter refused is not sent to it again: this is remembered by line, meter address and a keyed digest of
the password as long as the program runs, and forgotten when another password is entered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from app.adapters import _iec62056_rules as rules
from app.adapters import _meter_results as results
from app.adapters import _rereading as rereading
from app.adapters._iec62056_line import Quiet, Talk, now
from app.adapters._iec62056_rules import ClockReading, Place, Style
from app.adapters._live import Breakable, NeverAsked, Uplinks, beside, closed_here
from app.errors import LinkError, LinkReason, LocalProtocolError, RemoteProtocolError
from app.model.command import CommandSpec, ParamSpec
from app.model.device import Device
from app.model.interaction import Direction, Frame
from app.model.line import LineFormat, plain
from app.model.reading import LinkState
from app.ports import (
    Accepted,
    Adapter,
    AdapterContext,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    Limits,
    LinkChange,
    Reach,
    Report,
    RetryPolicy,
    Tap,
    Uplink,
)
from app.protocols import iec62056_21 as iec
from app.protocols import iec62056_session as sess
from app.protocols.iec62056_session import Fault, Job, Session
from app.transports.line import Line, LineOpener

PROGRESS: Final = "progress"  # fact of a meter while it is read: lines and octets so far
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times in seconds that nobody sets by hand."""

    end_s: float = 4.0  # for commands to break off when the connection is closed
    progress_s: float = 1.0
    detect: sess.Timing = rules.DETECT_TIMING


async def open_real_line(address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
    """``open_line``; its drivers are imported on use."""
    from app.transports.open_line import open_line

    return await open_line(address, line_format, whose=whose, rs485=rs485)


class RefusedPasswords:
    """Which password which meter has refused in this run of the program. Holds digests under a key of its own."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._refused: set[tuple[str, str, bytes]] = set()

    def _entry(self, settings: Mapping[str, Any]) -> tuple[str, str, bytes]:
        words = f"{settings['level']} {settings['password']}".encode()
        digest = hashlib.blake2b(words, key=self._key, digest_size=16).digest()
        return settings["address"], settings["meter_address"], digest

    def add(self, settings: Mapping[str, Any]) -> None:
        self._refused.add(self._entry(settings))

    def __contains__(self, settings: Mapping[str, Any]) -> bool:
        return self._entry(settings) in self._refused


# ---------------------------------------------------------------- the static side


class Iec62056:
    """AdapterType of IEC 62056-21 meters."""

    key = "iec62056"
    title = "IEC 62056-21 meter"
    summary = "Meters on an optical head, RS-485 or TCP: readout, registers, load profile, clock (also IEC 1107)."

    def __init__(self, *, open_line: LineOpener = open_real_line, pace: Pace | None = None) -> None:
        self._open_line = open_line
        self._pace = pace if pace is not None else Pace()
        self._refused = RefusedPasswords()

    def form(self) -> tuple[ParamSpec, ...]:
        return rules.FORM

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """One command at a time on a line; nothing is sent a second time by the pipeline, the protocol repeats."""
        longest = rules.longest_s(settings)
        return Limits(
            reach=Reach.DIRECT,
            needs_link=True,
            max_in_flight=1,
            accept_timeout_s=longest,
            stage_timeout_s=longest,
            device_timeout_s=longest,
            retry=RetryPolicy(retries=0),
        )

    def lane(self, device: Device) -> str:
        """The line."""
        return self.connection(device)

    def connection(self, device: Device) -> str:
        return str(device.settings.get("address") or device.id).strip()

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return rules.commands(device.settings, facts)

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return rules.unsupported(device.settings, facts)

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ("energy_import", "energy_export", "voltage_l1", "power_import")

    def create(self, context: AdapterContext) -> Adapter:
        return self._adapter(context)

    def _adapter(self, context: AdapterContext) -> Iec62056Adapter:
        return Iec62056Adapter(context, open_line=self._open_line, pace=self._pace, refused=self._refused)

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """Sign-on, detection and readout, heard as somebody who only listens would; commands in programming mode,
        carried out once more on their recorded answers. See ``Rereader``.

        Left out: the mode, which the settings may have chosen, doubts, which know earlier answers, and what this
        computer's clock decides.
        """
        came = rereading.incoming(frames)
        if not came:
            return None
        if spec.name in PROGRAMMING:
            from app.adapters._iec62056_rereading import reread

            return reread(spec, params, frames)
        data = plain(b"".join(one.data for one in came))
        if spec.name == "RAW":
            return Answer(result=_raw_result(*_reread_raw(bytes.fromhex(params["data"]), data)))
        session = Session(sess.Config())
        session.listen(0.0)
        heard = session.receive(data, 0.0)
        ident = next((one for one in reversed(heard) if isinstance(one, sess.Identified)), None)
        if spec.name in ("SIGN_ON", "DETECT"):
            if ident is None:
                raise RemoteProtocolError("no identification can be read in what came.", data[: iec.MAX_LINE])
            result = rules.identity_result(ident.identification, ident.mode)
            if spec.name == "DETECT":
                return Answer(result={"identification": result["identification"]})
            return Answer(result=_without(result, "mode", "summary"))
        block = next((one for one in reversed(heard) if isinstance(one, sess.BlockReceived)), None)
        if block is None:
            raise RemoteProtocolError("no whole data block can be read in what came.", data[: iec.MAX_LINE])
        found = rules.readout(
            block.data, block.check, ident.identification if ident is not None else None, device="", now=_ANY_TIME,
            interaction=None, is_complete=True,
        )  # fmt: skip
        return Answer(result=_without(found.result, "doubts"))

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Open the line and ask the meter who it is; nothing is sent in mode D and where it is only listened."""
        adapter = self._adapter(context)
        async with adapter.open():
            return await adapter.look()


PROGRAMMING: Final = frozenset(spec.name for spec in rules.PROGRAMMING)
_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)  # of samples, which a second reading does not keep


def _without(result: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in names}


def _reread_raw(sent: bytes, came: bytes) -> tuple[bytes, bytes]:
    """What was sent as it is, and what came of it without its reflection."""
    session = Session(sess.Config())
    session.raw(sent, 0.0, 1.0)
    session.sent(0.0)
    session.receive(came, 0.0)
    events = session.tick(session.deadline or 0.0)
    return sent, next(one.data for one in events if isinstance(one, sess.RawAnswer))


def _raw_result(sent: bytes, came: bytes) -> dict[str, Any]:
    summary = f"{len(came)} octets came" if came else "Nothing came"
    text = results.visible(came.decode("latin-1"))
    return {"summary": summary, "sent": sent.hex(), "received": came.hex(), "text": text}


# ---------------------------------------------------------------- the live side


class Iec62056Adapter(NeverAsked):
    """One live connection: a line and the meters on it. See ``Adapter``."""

    def __init__(
        self, context: AdapterContext, *, open_line: LineOpener, pace: Pace, refused: RefusedPasswords
    ) -> None:
        self.context = context
        self._open_line = open_line
        self.pace = pace
        self.refused = refused
        self.quiet = Quiet()
        self._line: Line | None = None
        self._lock = asyncio.Lock()
        self._uplinks = Uplinks()
        self._commands = Breakable()
        self._is_passive = all(rules.is_passive(context.settings_of(one.id)) for one in context.devices)

    # ------------------------------------------------------------ opening and closing

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the line. Leaving breaks off what is under way and gives the port back.

        Raises:
            LinkError: the line cannot be opened.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        settings, whose = self.context.settings, self.context.devices[0].name
        rs485 = any(self.context.settings_of(one.id)["rs485"] for one in self.context.devices)
        line = await self._open_line(settings["address"], rules.initial_format(settings), whose=whose, rs485=rs485)
        self._line = line
        try:
            async with beside() as group:
                tasks = [group.create_task(self._watch(line), name=f"line {line.name}")]
                if self._is_passive:
                    tasks.append(group.create_task(self._listen(line), name=f"listen {line.name}"))
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()
                    await self._commands.close(self.pace.end_s)
        finally:
            self._line = None
            await line.close()

    async def _watch(self, line: Line) -> None:
        await line.wait_closed()
        self._uplinks.lose(_gone(line))

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """Links, progress and what is heard. Raises LinkError when the line is gone."""
        text = "Listening." if self._is_passive else "The line is open; meters answer when they are asked."
        for device in self.context.devices:
            yield LinkChange(device.id, LinkState.ONLINE, text)
        async for uplink in self._uplinks.stream():
            yield uplink

    def tell(self, uplink: Uplink) -> None:
        self._uplinks.tell(uplink)

    async def look(self) -> list[str]:
        """What *Test* says."""
        line = self._line
        if line is None:
            raise closed_here(may_have_arrived=False)
        device = self.context.devices[0]
        settings = self.context.settings_of(device.id)
        lines = [f"The line {line.name} can be opened."]
        if rules.is_passive(settings) or settings["mode"] == rules.MODE_D:
            return [*lines, "Nothing was sent: the meter speaks by itself."]
        async with self._lock:
            call = Call(self, line, device, settings, self.context.tap)
            try:
                found = await call.sign_on(Job.IDENTIFY)
            except _Refusal as refusal:
                raise refusal.as_failure() from refusal
            finally:
                await call.end()
        return [*lines, f"The meter {found.identification} answers, mode {found.mode.value}."]

    # ------------------------------------------------------------ commands

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        """Carry out one command; the answer is direct.

        Raises:
            LinkError: the line is gone, or the meter silent. RemoteProtocolError: its answer cannot be read.
            DeliveryFailure: it cannot be done, or nobody saw whether it was.
        """
        handler = HANDLERS.get(request.spec.name)
        if handler is None:
            raise LocalProtocolError(f"An IEC 62056-21 meter has no command {request.spec.name}.")
        try:
            return await self._commands.run(self._carry_out(handler, request))
        except MeterSaysNo as no:
            return Answer(execution=Execution.FAILURE, code=no.code, text=str(no), facts=no.facts)

    async def verify(self, request: Dispatch) -> Answer | None:
        """Read back what a write of unknown outcome did; nothing is changed."""
        check = _CHECKS.get(request.spec.name)
        if check is None:
            return None
        try:
            return await self._commands.run(self._carry_out(check, request))
        except MeterSaysNo:
            return None

    async def _carry_out(self, handler: Callable[[Call, Dispatch], Awaitable[T]], request: Dispatch) -> T:
        async with self._lock:
            line = self._line
            if line is None or self._commands.is_closed:
                raise closed_here(may_have_arrived=False)
            settings = self.context.settings_of(request.device.id)
            call = Call(self, line, request.device, settings, request.tap, request.interaction.id)
            try:
                return await handler(call, request)
            except MeterSaysNo as no:
                no.facts = call.facts
                raise
            except _Refusal as refusal:
                if call.effect_sent:
                    raise DeliveryFailure(refusal.code, str(refusal), Disposition.UNKNOWN) from refusal
                raise refusal.as_failure() from refusal
            except RemoteProtocolError as exc:
                if call.effect_sent:
                    raise DeliveryFailure("UNDECODABLE", str(exc), Disposition.UNKNOWN) from exc
                raise
            except LinkError as exc:
                raise LinkError(str(exc), exc.reason, may_have_arrived=call.effect_sent) from exc
            finally:
                await call.end()

    # ------------------------------------------------------------ listening

    async def _listen(self, line: Line) -> None:
        """Every complete message becomes a row."""
        config = rules.config_of(self.context.settings)
        session = Session(config)
        ident: iec.Identification | None = None

        def heard(event: sess.Event) -> None:
            nonlocal ident
            match event:
                case sess.Identified(found, _mode):
                    ident = found
                case sess.BlockReceived(data, check):
                    self.tell(self._readout_report(data, check, ident))
                    ident = None
                case sess.Heard(message, octets):
                    device = self.context.devices[0]
                    answer = Answer(result=rules.message_result(message, octets))
                    self.tell(Report(device=device.id, command="MESSAGE", answer=answer, is_contact=False))
                case _:
                    pass

        with contextlib.suppress(LinkError):  # the line's watch tells it
            await Talk(line, session, self.context.tap, self.quiet, heard).drive(session.listen(now()))

    def _readout_report(self, data: bytes, check: iec.BlockCheck, ident: iec.Identification | None) -> Report:
        serials = iec.serials_of(iec.parse_readout(data).data_sets)
        devices = self.context.devices
        device = next((one for one in devices if one.serial and one.serial in serials), devices[0])
        moment = self.context.clock.now()
        code = rules.damage_code(check)
        is_good = not code
        found = rules.readout(
            data, check, ident, device=device.id, now=moment, interaction=None, is_complete=is_good
        )  # fmt: skip
        settings = self.context.settings_of(device.id)
        facts = {} if ident is None else rules.identity_facts(ident, ident.mode, settings)
        if is_good and found.result["meter_serial"]:
            facts["meter_serial"] = found.result["meter_serial"]
        execution = Execution.SUCCESS if is_good else Execution.FAILURE
        answer = Answer(
            execution=execution, code=code, result=found.result, samples=found.samples,
            facts=facts, text=" ".join(found.doubts),
        )  # fmt: skip
        return Report(device=device.id, command="READOUT", answer=answer)


# ---------------------------------------------------------------- one command


class _Refusal(Exception):
    """The conversation cannot go on: ``data`` is what came of a block."""

    def __init__(self, fault: Fault, text: str, data: bytes = b"") -> None:
        super().__init__(text)
        self.code = fault.value
        self.fault = fault
        self.data = data

    def as_failure(self) -> Exception:
        match self.fault:
            case Fault.SILENT | Fault.NO_DATA:
                return LinkError(str(self), LinkReason.SILENT, may_have_arrived=False)
            case Fault.NOISE | Fault.CHECK | Fault.INCOMPLETE | Fault.TOO_LONG | Fault.ENDED:
                return RemoteProtocolError(str(self), self.data[: iec.MAX_LINE])
            case Fault.RATE | Fault.MODE:
                return DeliveryFailure(self.code, str(self), Disposition.FINAL)


class MeterSaysNo(Exception):
    """The meter answered, and its answer is no."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.facts: Mapping[str, Any] = {}


class Call:
    """One command with one meter: its conversations, one after the other."""

    def __init__(
        self, owner: Iec62056Adapter, line: Line, device: Device, settings: Mapping[str, Any], tap: Tap,
        interaction: int | None = None,
    ) -> None:  # fmt: skip
        self.owner = owner
        self.line = line
        self.device = device
        self.settings = settings
        self.interaction = interaction
        self.effect_sent = False
        self.ident: iec.Identification | None = None
        self.events: list[sess.Event] = []
        self.facts: dict[str, Any] = {}
        self._tap = tap
        self._talk: Talk | None = None
        self._quiet_until: float | None = None
        self._kind = ""  # of R, once one was answered
        self._time_seen: datetime | None = None
        self._told_at = float("-inf")
        self._has_progress = False

    @property
    def clock(self) -> datetime:
        return self.owner.context.clock.now()

    @property
    def style(self) -> Style | None:
        return rules.style_of(self.settings, self.ident)

    # ------------------------------------------------------------ conversations

    async def begin(self, config: sess.Config, tap: Tap | None = None, *, is_listening: bool = False) -> Session:
        """A fresh conversation at the initial format; what was received unasked is shown and belongs to nothing.

        Where we speak first the line must be quiet: a meter that still sends does not hear us.
        """
        await self.end()
        session = Session(config)
        timing = session.timing
        if self._quiet_until is None:
            self._quiet_until = now() + timing.quiet_s
        await self.owner.quiet.wait(self.line, timing, now() if is_listening else self._quiet_until, self._throw_away)
        if self.line.format != config.initial:
            await self.line.set_format(config.initial)
        self._talk = Talk(self.line, session, tap if tap is not None else self._tap, self.owner.quiet, self._seen)
        return session

    def _throw_away(self, data: bytes) -> None:
        self.owner.context.tap(Direction.IN, data, "unasked, thrown away", link=self.line.name)

    async def drive(self, outputs: list[sess.Output]) -> list[sess.Event]:
        """Raises _Refusal or MeterSaysNo for what ends the conversation before its purpose, LinkError for the line."""
        assert self._talk is not None
        events = await self._talk.drive(outputs)
        for event in events:
            match event:
                case sess.Failed(fault, sentence, data):
                    raise _Refusal(fault, f"{self.device.name}: {sentence}", data)
                case sess.PasswordRefused(text):
                    self.owner.refused.add(self.settings)
                    raise MeterSaysNo(
                        "PASSWORD_REFUSED", f"{self.device.name} refused the password ({text}). It is not sent again "
                        "until another one is entered in the connection: meters lock themselves after a few.",
                    )  # fmt: skip
                case _:
                    pass
        return events

    async def end(self) -> None:
        """Break off what is under way and stand at the meter's initial format; harmless when nothing is to be done."""
        talk, self._talk = self._talk, None
        if talk is not None:
            await talk.end()
        initial = rules.initial_format(self.settings)
        if self.line.format != initial:
            with contextlib.suppress(LinkError):
                await self.line.set_format(initial)
        if self._has_progress:
            self._has_progress = False
            self.owner.tell(Facts(self.device.id, {PROGRESS: None}, is_contact=False))

    def _seen(self, event: sess.Event) -> None:
        match event:
            case sess.DataSetSeen(one) if one.address == rules.TIME or one.address.endswith(f":{rules.TIME}"):
                self._time_seen = self.clock
            case sess.Progress(lines, octets) if now() - self._told_at >= self.owner.pace.progress_s:
                self._told_at = now()
                self._has_progress = True
                self.owner.tell(Facts(self.device.id, {PROGRESS: {"lines": lines, "octets": octets}}))
            case _:
                pass

    async def sign_on(self, job: Job, *, packet: str = "0") -> sess.Identified:
        """Until the job's first rest; what was said stands in ``events``."""
        return await self._sign_on(job, rules.config_of(self.settings, packet=packet))

    async def _sign_on(self, job: Job, config: sess.Config) -> sess.Identified:
        session = await self.begin(config)
        self.events = await self.drive(session.sign_on(job, now()))
        return self._identity()

    def _identity(self) -> sess.Identified:
        found = next(event for event in self.events if isinstance(event, sess.Identified))
        self.ident = found.identification
        self.facts |= rules.identity_facts(found.identification, found.mode, self.settings)
        return found

    async def program(self, *, is_write: bool) -> None:
        """Programming mode, with the password where it is wanted and was not refused before."""
        gives = rules.wants_password(self.settings, is_write=is_write)
        if gives and self.settings in self.owner.refused:
            if is_write:
                raise MeterSaysNo(
                    "PASSWORD_REFUSED", f"{self.device.name} has refused this password before, so it was not sent "
                    "again. Enter another one in the connection.",
                )  # fmt: skip
            gives = False
        config = rules.config_of(self.settings, password=gives, is_write=is_write)
        await self._sign_on(Job.PROGRAMMING, config)
        self._check_ready()

    def _check_ready(self) -> None:
        if not any(isinstance(event, sess.Ready) for event in self.events):
            error = next((event.text for event in self.events if isinstance(event, sess.MeterError)), "nothing")
            raise MeterSaysNo("METER_ERROR", f"{self.device.name} refuses programming mode: {error}.")

    async def finish(self) -> None:
        """End the conversation in order; what was asked for has come, so a line that goes now costs nothing."""
        if self._talk is not None:
            with contextlib.suppress(LinkError):
                await self._talk.drive(self._talk.session.finish(now()))

    async def _command(self, command: iec.Command) -> sess.Answered | sess.MeterError:
        assert self._talk is not None
        events = await self.drive(self._talk.session.command(command, now()))
        return next(event for event in events if isinstance(event, sess.Answered | sess.MeterError))

    async def read(self, operand: str, *, style: Style | None = None) -> str:
        """The data of one read: the kinds of the national practice in their order, then always the one that worked."""
        kinds = (self._kind,) if self._kind else rules.read_kinds(self.settings, style or self.style)
        answer: sess.Answered | sess.MeterError | None = None
        for kind in kinds:
            answer = await self._command(iec.Command("R", kind, operand))
            if isinstance(answer, sess.Answered):
                self._kind = kind
                return answer.text or ""
        text = answer.text if isinstance(answer, sess.MeterError) else ""
        tried = " and ".join(f"R{kind}" for kind in kinds)
        raise MeterSaysNo("METER_ERROR", f"{self.device.name} answered {text} to {operand} ({tried}).")

    async def change(self, command: iec.Command) -> None:
        """A write or execution; from now on its outcome may be unknown."""
        self.effect_sent = True
        answer = await self._command(command)
        if isinstance(answer, sess.MeterError):
            hint = "" if self.settings["password"] else " No password is entered in the connection."
            raise MeterSaysNo(
                "METER_ERROR", f"{self.device.name} refused {command.name}{command.kind}: {answer.text}.{hint} Some "
                "meters are written only with the terminal cover open.",
            )  # fmt: skip

    async def write(self, obis: str, value: str, kind: str = "") -> None:
        read_kind = self._kind or rules.read_kinds(self.settings, self.style)[0]
        await self.change(iec.Command("W", kind or rules.WRITE_KINDS[read_kind], f"{obis}({value})"))

    async def register(self, obis: str, operand: str = "") -> tuple[dict[str, Any], iec.DataSet]:
        text = await self.read(f"{obis}({operand})")
        found = rules.register_of(text, obis)
        if found is None:
            shown = text[: iec.EXCERPT]
            raise RemoteProtocolError(
                f"{self.device.name} answered {obis} with {shown!r}, which is no value.", text.encode("latin-1")
            )
        return found

    async def meter_clock(self) -> ClockReading:
        """Date before time, and once more where midnight may lie between."""
        date = (await self.register(rules.DATE))[1].values[0].text
        time = (await self.register(rules.TIME))[1].values[0].text
        moment = self.clock
        found = rules.clock_of(time, date, moment)
        if found is not None and (found.at.astimezone().hour, found.at.astimezone().minute) == (0, 0):
            date = (await self.register(rules.DATE))[1].values[0].text
            found = rules.clock_of(time, date, moment)
        if found is None:
            raise RemoteProtocolError(
                f"{self.device.name} gives its clock as {time[:32]!r} and {date[:32]!r}, which is no time."
            )
        return found

    # ------------------------------------------------------------ commands

    async def readout(self, request: Dispatch) -> Answer:
        try:
            await self._read_out(request.params["packet"])
        except _Refusal as refusal:
            if refusal.fault not in (Fault.CHECK, Fault.INCOMPLETE) or not refusal.data:
                raise
            return self._damaged(refusal.code, str(refusal), refusal.data)
        block = next((event for event in self.events if isinstance(event, sess.BlockReceived)), None)
        if block is None:
            error = next((event.text for event in self.events if isinstance(event, sess.MeterError)), "nothing")
            raise MeterSaysNo("METER_ERROR", f"{self.device.name} answered {error} instead of data.")
        if code := rules.damage_code(block.check):
            return self._damaged(code, f"{self.device.name}: {block.check.sentence} Read again.", block.data)
        moment = self.clock
        faults = self._talk.session.parity_faults if self._talk is not None else 0
        found = rules.readout(
            block.data, block.check, self.ident, device=self.device.id, now=moment, interaction=self.interaction,
            is_complete=True, parity_faults=faults,
        )  # fmt: skip
        doubts = [*found.doubts, *self._other_meter()]
        found.result["doubts"] = doubts
        findings = list(rules.doubt_findings(doubts, self.device.id, moment, self.interaction))
        if serial := found.result["meter_serial"]:
            self.facts["meter_serial"] = serial
        if (reading := self._clock_in(block.data)) is not None:
            self.facts |= rules.clock_facts(reading)
            findings.append(rules.clock_finding(reading, self.device.id, self.interaction))
        return Answer(
            result=found.result, text=" ".join(doubts), samples=found.samples, facts=self.facts,
            findings=tuple(findings),
        )  # fmt: skip

    def _other_meter(self) -> list[str]:
        known = self.owner.context.facts(self.device.id).get("identification")
        if self.ident is None or not known or known == str(self.ident):
            return []
        return [f"The meter answered as {self.ident}, earlier as {known}. Another one may have answered."]

    async def _read_out(self, packet: str) -> None:
        if self.settings["mode"] != rules.MODE_D:
            await self.sign_on(Job.READOUT, packet=packet)
            return
        session = await self.begin(rules.config_of(self.settings), is_listening=True)
        patience = float(self.settings["push_wait_s"])
        self.events = await self.drive(session.listen(now(), patience_s=patience))
        if any(isinstance(event, sess.Identified) for event in self.events):
            self._identity()

    def _damaged(self, code: str, text: str, data: bytes) -> Answer:
        found = rules.readout(
            data, iec.check_of(data), self.ident, device=self.device.id, now=self.clock, interaction=self.interaction,
            is_complete=False,
        )  # fmt: skip
        return Answer(execution=Execution.FAILURE, code=code, text=text, result=found.result)

    def _clock_in(self, data: bytes) -> ClockReading | None:
        """The clock of a readout, compared with this computer's when its line came."""
        sets = iec.parse_readout(data).data_sets
        texts = {
            str(one.code.key): one.values[0].text for one in reversed(sets) if one.code is not None
            and one.code.is_current and one.values
        }  # fmt: skip
        time, date = texts.get(str((0, 9, 1))), texts.get(str((0, 9, 2)))
        if time is None or date is None:
            return None
        return rules.clock_of(time, date, self._time_seen or self.clock)

    async def read_register(self, request: Dispatch) -> Answer:
        await self.program(is_write=False)
        row, one = await self.register(request.params["obis"], request.params["operand"])
        await self.finish()
        samples = results.readout_samples([one], self.device.id, self.clock, self.interaction)
        return Answer(result=row, samples=samples, facts=self.facts)

    async def write_register(self, request: Dispatch) -> Answer:
        obis, value = request.params["obis"], request.params["value"]
        kind = request.params["write_with"]
        await self.program(is_write=True)
        before = await self._value(obis)
        await self.write(obis, value, "" if kind == rules.AUTO else kind)
        after = await self._value(obis)
        await self.finish()
        if after is None:
            return self._written(obis, before, after, f"{obis} was written; it cannot be read back.")
        if after != value:
            text = f"{obis} was acknowledged and still reads {after!r}."
            return replace(
                self._written(obis, before, after, text), execution=Execution.FAILURE, code="NO_EFFECT"
            )  # fmt: skip
        return self._written(obis, before, after, "")

    def _written(self, obis: str, before: str | None, after: str | None, text: str) -> Answer:
        result = {"summary": f"{obis}: {before} -> {after}", "obis": obis, "old": before, "new": after}
        return Answer(result=result, text=text, facts=self.facts)

    async def _value(self, obis: str) -> str | None:
        """What a register reads; None where the meter does not tell."""
        try:
            return str((await self.register(obis))[1].values[0])
        except (MeterSaysNo, RemoteProtocolError):
            return None

    async def load_profile(self, request: Dispatch) -> Answer:
        profile = request.params["profile"]
        await self.program(is_write=False)
        columns = await self._columns(profile) if self.style is Style.TURKISH else ()
        operand = rules.span(profile, request.params["start"], request.params["end"], self.style)
        text = await self.read(operand)
        await self.finish()
        found = rules.profile(text, columns, device=self.device.id, interaction=self.interaction)
        findings = rules.doubt_findings(found.doubts, self.device.id, self.clock, self.interaction)
        return Answer(
            result=found.result, samples=found.samples, facts=self.facts, findings=findings,
            text=" ".join(found.doubts),
        )  # fmt: skip

    async def _columns(self, profile: str) -> tuple[iec.Channel, ...]:
        """The columns of a Turkish load profile as the meter lists them (97.1.0 and so on); () where it does not."""
        number = int(profile.removeprefix("P."))
        if number not in rules.LISTED_PROFILES:
            return ()
        text = await self._value(f"97.{number}.0")
        return iec.parse_columns(text) if text else ()

    async def read_clock(self, _request: Dispatch) -> Answer:
        await self.program(is_write=False)
        reading = await self.meter_clock()
        await self.finish()
        facts = self.facts | rules.clock_facts(reading)
        finding = rules.clock_finding(reading, self.device.id, self.interaction)
        return Answer(result=rules.clock_result(reading), facts=facts, findings=(finding,))

    async def set_clock(self, request: Dispatch) -> Answer:
        wanted: datetime | None = request.params["time"]
        ahead = timedelta(0) if wanted is None else wanted - self.clock
        await self.program(is_write=True)
        old = await self.meter_clock()
        date = rules.date_like(old.date_text, self.clock + ahead)
        if date != old.date_text.strip():
            await self.write(rules.DATE, date)
        await self.write(rules.TIME, rules.time_like(old.time_text, self.clock + ahead))
        new = await self.meter_clock()
        await self.finish()
        result = rules.set_result(old, new)
        facts = self.facts | rules.clock_facts(new)
        finding = rules.clock_finding(new, self.device.id, self.interaction)
        if abs((new.at - (new.computer + ahead)).total_seconds()) <= rules.SET_LIMIT_S:
            return Answer(result=result, facts=facts, findings=(finding,))
        return Answer(
            execution=Execution.FAILURE, code="NO_EFFECT", result=result, facts=facts, findings=(finding,),
            text="The meter acknowledged the new time and shows another one. Some meters take it only with the "
                 "terminal cover open.",
        )  # fmt: skip

    async def identify(self, _request: Dispatch) -> Answer:
        found = await self.sign_on(Job.IDENTIFY)
        return Answer(result=rules.identity_result(found.identification, found.mode), facts=self.facts)

    async def execute(self, request: Dispatch) -> Answer:
        await self.program(is_write=True)
        await self.change(iec.Command("E", "2", request.params["data"]))
        await self.finish()
        return Answer(result={"summary": "The meter acknowledged."}, facts=self.facts)

    async def disconnect(self, _request: Dispatch) -> Answer:
        return await self._switch(rules.DISCONNECTED)

    async def connect(self, _request: Dispatch) -> Answer:
        return await self._switch(rules.CONNECTED)

    async def _switch(self, wanted: str) -> Answer:
        await self.program(is_write=True)
        if self.style is not Style.TURKISH:
            text = f"{self.device.name} is no Turkish national meter; it has no {rules.RELAY}."
            raise MeterSaysNo("UNSUPPORTED", text)
        before = await self._value(rules.RELAY)
        await self.write(rules.RELAY, wanted)
        after = await self._value(rules.RELAY)
        await self.finish()
        answer = self._written(rules.RELAY, before, after, "")
        if after is not None and after != wanted:
            text = f"The meter acknowledged and {rules.RELAY} still reads {after!r}."
            return replace(answer, execution=Execution.FAILURE, code="NO_EFFECT", text=text)
        return replace(answer, facts={**self.facts, "supply": _SUPPLY[wanted]})

    async def raw(self, request: Dispatch) -> Answer:
        session = await self.begin(rules.config_of(self.settings))
        self.effect_sent = True
        data = bytes.fromhex(request.params["data"])
        events = await self.drive(session.raw(data, now(), float(request.params["wait_s"])))
        came = next(event.data for event in events if isinstance(event, sess.RawAnswer))
        return Answer(result=_raw_result(data, came))

    # ------------------------------------------------------------ auto-detection (A9)

    async def detect(self, _request: Dispatch) -> Answer:
        own = Place(self.settings["baud"], self.settings["frame"], self.settings["parity"])
        known = str(self.owner.context.facts(self.device.id).get("identification") or "")
        first = rules.places(self.owner.context.learnt(), known, own, has_rate=self.line.has_rate)
        attempts: list[dict[str, Any]] = []
        for place in (*first, *rules.second_round(first)):
            found = await self._try(place, attempts)
            if found is not None:
                return self._detected(place, found, attempts)
        text = (
            f"{self.device.name} did not answer at any of {len(first)} settings. Check the head's place (its magnet "
            "and direction), the power of the meter, the wiring, and the meter's address."
        )
        result = {
            "summary": f"Nothing found in {len(attempts)} attempts", "attempts": attempts, "identification": "",
            "format": "", "mode": "",
        }  # fmt: skip
        return Answer(execution=Execution.FAILURE, code="NOT_FOUND", text=text, result=result)

    async def _try(self, place: Place, attempts: list[dict[str, Any]]) -> sess.Identified | None:
        sent, received = bytearray(), bytearray()

        def tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
            (sent if direction is Direction.OUT else received).extend(data)
            self._tap(direction, data, f"{note} {place}".strip(), link=link)

        settings = {**self.settings, **place.settings, "wakeup": sess.Wakeup.NONE.value}
        config = replace(rules.config_of(settings), repeats=0, timing=self.owner.pace.detect, is_trial=True)
        session = await self.begin(config, tap)
        began = now()
        assert self._talk is not None
        events = await self._talk.drive(session.sign_on(Job.IDENTIFY, now()))
        found = next((event for event in events if isinstance(event, sess.Identified)), None)
        attempts.append(
            {
                "number": len(attempts) + 1, "format": place.format, "parity": place.parity, "sent": sent.hex(),
                "received": received.hex(),
                "text": results.visible(plain(bytes(received)).decode("latin-1")),
                "verdict": rules.verdict_of(bytes(sent), bytes(received), is_identified=found is not None),
                "seconds": round(now() - began, 2),
            }
        )  # fmt: skip
        return found

    def _detected(self, place: Place, found: sess.Identified, attempts: list[dict[str, Any]]) -> Answer:
        ident = found.identification
        facts = rules.identity_facts(ident, found.mode, self.settings)
        words = " (parity by software)" if place.parity == rules.SOFTWARE else ""
        result = {
            "summary": f"{ident} at {place.format}{words}", "attempts": attempts, "identification": str(ident),
            "format": place.format, "mode": found.mode.value,
        }  # fmt: skip
        return Answer(result=result, facts=facts, settings=place.settings, learnt={rules.model_key(ident): str(place)})

    # ------------------------------------------------------------ reading back

    async def check_clock(self, request: Dispatch) -> Answer | None:
        """Whether the clock shows what was to be set; a time of one's own has gone on since it was sent."""
        await self.program(is_write=False)
        reading = await self.meter_clock()
        await self.finish()
        wanted: datetime | None = request.params["time"]
        since = timedelta(0) if wanted is None else reading.computer - request.interaction.created
        target = reading.computer if wanted is None else wanted + since
        is_set = abs((reading.at - target).total_seconds()) <= rules.SET_LIMIT_S + (
            0 if wanted is None else rules.SHORT_S
        )  # fmt: skip
        return _read_back(
            is_set, f"The meter's clock is {rules.drift_words(reading.drift_s)}.", rules.clock_result(reading)
        )  # fmt: skip

    async def check_register(self, request: Dispatch) -> Answer | None:
        await self.program(is_write=False)
        return await self._check_value(request.params["obis"], request.params["value"])

    async def check_disconnected(self, _request: Dispatch) -> Answer | None:
        await self.program(is_write=False)
        return await self._check_value(rules.RELAY, rules.DISCONNECTED)

    async def check_connected(self, _request: Dispatch) -> Answer | None:
        await self.program(is_write=False)
        return await self._check_value(rules.RELAY, rules.CONNECTED)

    async def _check_value(self, obis: str, wanted: str) -> Answer | None:
        present = await self._value(obis)
        await self.finish()
        if present is None:
            return None
        return _read_back(present == wanted, f"{obis} reads {present!r}.", {"obis": obis, "new": present})


_SUPPLY: Final[Mapping[str, str]] = {rules.CONNECTED: "connected", rules.DISCONNECTED: "disconnected"}
HANDLERS: Final[Mapping[str, Callable[[Call, Dispatch], Coroutine[Any, Any, Answer]]]] = {
    "READOUT": Call.readout,
    "READ_REGISTER": Call.read_register,
    "WRITE_REGISTER": Call.write_register,
    "LOAD_PROFILE": Call.load_profile,
    "READ_EVENTS": Call.load_profile,
    "READ_CLOCK": Call.read_clock,
    "SET_CLOCK": Call.set_clock,
    "SIGN_ON": Call.identify,
    "DETECT": Call.detect,
    "EXECUTE": Call.execute,
    "DISCONNECT_SUPPLY": Call.disconnect,
    "CONNECT_SUPPLY": Call.connect,
    "RAW": Call.raw,
}
_CHECKS: Final[Mapping[str, Callable[[Call, Dispatch], Awaitable[Answer | None]]]] = {
    "SET_CLOCK": Call.check_clock,
    "WRITE_REGISTER": Call.check_register,
    "DISCONNECT_SUPPLY": Call.check_disconnected,
    "CONNECT_SUPPLY": Call.check_connected,
}


def _read_back(is_done: bool, text: str, result: Mapping[str, Any]) -> Answer:
    execution = Execution.SUCCESS if is_done else Execution.FAILURE
    return Answer(execution=execution, code="" if is_done else "NO_EFFECT", text=text, result=result)


def _gone(line: Line) -> LinkError:
    return LinkError(
        f"The line {line.name} is gone. Check the cable and the adapter; it is opened again by itself.",
        LinkReason.CLOSED,
    )
