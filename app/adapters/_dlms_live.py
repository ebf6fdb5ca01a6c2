"""DLMS/COSEM meters: the live side. Loaded by ``dlms`` when a connection is opened.

One instance serves a line; every meter on it has an association of its own, made on first use, released when it was
idle for a while, and made anew when the meter forgot it. A command that was cut off in the middle leaves a line whose
next answer may be an old one: HDLC begins again with SNRM, the wrapper needs a new connection.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from app.adapters import _dlms_rules as rules
from app.adapters._iec62056_line import Quiet
from app.adapters._iec62056_line import Talk as Conversation
from app.adapters._live import NeverAsked
from app.adapters.dlms import Pace
from app.errors import ConfigError, LinkError, LinkReason, LocalProtocolError, RemoteProtocolError
from app.model.device import Device
from app.model.interaction import Direction
from app.model.reading import LinkState
from app.ports import (
    AdapterContext,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    LinkChange,
    Tap,
    Uplink,
)
from app.protocols import dlms, obis
from app.protocols import dlms_objects as objects
from app.protocols import dlms_values as dv
from app.protocols.dlms import Attribute, Client, Exchange, MeterRefusal, Profile
from app.protocols.dlms_link import Ended, Heard, Link, Opened, Received, Send, Step
from app.protocols.dlms_objects import Column, CosemObject, Scaler
from app.protocols.dlms_security import Cipher, Mechanism, Protection
from app.protocols.dlms_values import CosemTime, Value
from app.protocols.iec62056_21 import Mode
from app.protocols.iec62056_session import Config, Failed, HdlcReady, Job
from app.protocols.iec62056_session import Session as SignOn
from app.protocols.obis import Obis
from app.transports.line import Line, LineOpener

_log = logging.getLogger(__name__)

REDACTED: Final = b"[redacted]"
SMALL_FRAME: Final = 15  # octets: supervisory frames have no room for a secret
NOISE_FACTOR: Final = 10  # octets that make no frame do not keep a request waiting for ever
AT_ONCE: Final = 64 << 10  # octets of a value that are read on the loop; takes a tenth of a second
COUNTER: Final = "invocation_counter"
MECHANISMS: Final[Mapping[str, Mechanism]] = {
    rules.NONE: Mechanism.NONE, rules.LOW: Mechanism.LOW, "manufacturer": Mechanism.MANUFACTURER,
    "md5": Mechanism.MD5, "sha1": Mechanism.SHA1, "gmac": Mechanism.GMAC, "sha256": Mechanism.SHA256,
    "ecdsa": Mechanism.ECDSA,
}  # fmt: skip
PROTECTIONS: Final[Mapping[str, Protection]] = {
    rules.NONE: Protection.NONE, "service": Protection.SERVICE, "general": Protection.GENERAL
}  # fmt: skip

T = TypeVar("T")


class _Forgotten(LinkError):
    """The meter took nothing of the request, because it does not know the link any more."""


@dataclass(eq=False, slots=True)
class _Session:
    """One meter of the line. ``client`` is None while there is no association."""

    device: Device
    settings: Mapping[str, Any]
    cipher: Cipher | None = None
    link: Link | None = None
    client: Client | None = None
    is_proven: bool = False  # something was answered since the association
    used_at: float = 0.0
    counter_told: int = -1
    scalers: dict[tuple[int, bytes], Scaler | None] = field(default_factory=dict)
    clock: CosemTime | None = None  # as the meter writes times

    @property
    def is_inverted(self) -> bool:
        return bool(self.settings["deviation"] == "inverted")


class DlmsAdapter(NeverAsked):
    """One live line. See ``Adapter``."""

    def __init__(
        self, context: AdapterContext, *, open_line: LineOpener, pace: Pace, refused: dict[bytes, str]
    ) -> None:
        self._context = context
        self._open_line = open_line
        self._pace = pace
        self._refused = refused
        self._lock = asyncio.Lock()
        self._line: Line | None = None
        self._quiet = Quiet()
        self._is_closing = False
        self._why_closed = ""
        self._hidden = b""  # what must not be seen in frames now
        self._uplinks: deque[Uplink] = deque()
        self._sessions = {
            device.id: _Session(device, context.settings_of(device.id)) for device in context.devices
        }  # fmt: skip

    # ---------------------------------------------------------------- the port

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the line; meters are spoken to on first use. Leaving says goodbye where it can and gives the port back.

        Raises:
            LinkError: there is no such port, it is taken, or the network refuses. ConfigError: a setting is wrong.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        settings = self._context.settings
        first = self._context.devices[0]
        line = await self._open_line(
            settings["address"], rules.line_format_of(settings), whose=first.name, rs485=settings["rs485"]
        )
        self._line = line
        try:
            yield
        finally:
            self._is_closing = True
            try:
                if not self._lock.locked():
                    async with self._lock:
                        for session in self._sessions.values():
                            await self._part(session, self._context.tap, limit_s=self._pace.closing_s)
            finally:
                await line.close()

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """The state of the link; runs until the line is gone. Raises LinkError."""
        line = self._here()
        for device in self._context.devices:
            yield LinkChange(device.id, LinkState.ONLINE)
        while True:
            try:
                async with asyncio.timeout(self._pace.tick_s):
                    await line.wait_closed()
            except TimeoutError:
                await self._rest()
            else:
                if not self._is_closing:
                    text = self._why_closed or f"The line {line.name} is gone. Check the cable or the network."
                    raise LinkError(text, LinkReason.CLOSED)
                return
            while self._uplinks:
                yield self._uplinks.popleft()

    async def _rest(self) -> None:
        """What happens while nobody asks: stray octets are shown, and idle associations released."""
        if self._lock.locked():
            return
        async with self._lock:
            now = _now()
            for session in self._sessions.values():
                if session.link is None:
                    continue
                self._show_strays(session)
                if now - session.used_at >= session.settings["idle_s"] * self._pace.second_s:
                    await self._part(session, self._context.tap)

    async def submit(self, request: Dispatch) -> Answer:
        """Carry out one command; the answer is direct."""
        handler = self._handlers().get(request.spec.name)
        if handler is None:
            raise LocalProtocolError(f"The DLMS adapter has no command {request.spec.name}.")
        return await self._with_talk(request, lambda talk: handler(request, talk))

    async def verify(self, request: Dispatch) -> Answer | None:
        """Read back whether a setting, writing or switching of unknown outcome worked; only GETs are sent."""
        match request.spec.name:
            case "SET_CLOCK":
                return await self._with_talk(request, lambda talk: self._verify_clock(request, talk))
            case "WRITE_ATTRIBUTE":
                return await self._with_talk(request, lambda talk: self._verify_write(request, talk))
            case "CONNECT_SUPPLY" | "DISCONNECT_SUPPLY":
                return await self._with_talk(request, lambda talk: self._relay_moved(request, talk))
            case _:
                return None

    async def _with_talk(self, request: Dispatch, do: Callable[[Talk], Awaitable[Answer]]) -> Answer:
        async with self._lock:
            self._here()
            session = self._sessions[request.device.id]
            talk = Talk(self, session, request.tap)
            try:
                await self._begin(session, request.tap)
                return await do(talk)
            except MeterRefusal as exc:
                return Answer(execution=Execution.FAILURE, code=exc.code, text=str(exc))
            except ConfigError as exc:
                text = f"The connection of {request.device.name} cannot be used: {exc}. Edit it."
                raise DeliveryFailure("BAD_SETTING", text, Disposition.FINAL) from None
            finally:
                session.used_at = _now()
                self._tell_counter(session)

    async def look(self) -> Sequence[str]:
        """Associate with the first meter and say in sentences what was found.

        Raises:
            LinkError, ConfigError, MeterRefusal, RemoteProtocolError.
        """
        session = next(iter(self._sessions.values()))
        talk = Talk(self, session, self._context.tap)
        async with self._lock:
            await self._begin(session, self._context.tap)
            association = session.client.association if session.client is not None else None
            said = [association.words if association is not None else "The meter accepted the association."]
            try:
                name = await talk.get(Attribute(objects.DATA, _LOGICAL_DEVICE, 2))
            except MeterRefusal as exc:
                return [*said, str(exc)]
            return [*said, f"Its name is {rules.value_text(name, None)[0]}."]

    def _tell_counter(self, session: _Session) -> None:
        cipher = session.cipher
        if cipher is not None and cipher.counter != session.counter_told:
            session.counter_told = cipher.counter
            self._uplinks.append(Facts(session.device.id, {COUNTER: cipher.counter}, is_contact=False))

    def _here(self) -> Line:
        if self._line is None or self._is_closing:
            raise LinkError("The connection was closed here.", LinkReason.CLOSED, may_have_arrived=False)
        return self._line

    # ---------------------------------------------------------------- association

    async def _begin(self, session: _Session, tap: Tap) -> None:
        """An association, if there is none. What fails here has not reached any command.

        Raises:
            LinkError, MeterRefusal, RemoteProtocolError, ConfigError.
        """
        if session.client is not None:
            self._show_strays(session)
        if session.client is not None:
            return
        if (said := self._refused.get(rules.access_digest(session.settings))) is not None:
            raise MeterRefusal("AUTHENTICATION_FAILED", said, is_password=True)
        try:
            await self._associate(session, tap)
        except MeterRefusal as exc:
            if exc.is_password:
                self._refused[rules.access_digest(session.settings)] = (
                    f"Nothing was sent: the meter refused this password or these keys before ({exc.code}). Many meters "
                    "lock after a few wrong ones. Correct the connection, or press Test there to try once more."
                )
            await self._part(session, tap)
            raise
        except LinkError as exc:
            raise LinkError(str(exc), exc.reason, may_have_arrived=False) from exc

    async def _associate(self, session: _Session, tap: Tap) -> None:
        settings = session.settings
        profile = self._profile(session)
        profile.check()
        link = rules.link_of(settings)
        line = self._here()
        if settings["framing"] == rules.HDLC and settings["opening"] == rules.MODE_E:
            for other in self._sessions.values():
                await self._part(other, tap)
            await self._sign_on(session, line, tap)
        elif line.has_rate and line.format != (wanted := rules.line_format_of(settings)):
            await line.set_format(wanted)
        session.link = link
        opening = link.open()
        if opening:
            await self._write(opening, "SNRM", tap)
            await self._await(session, Opened, tap)
        client = Client(profile)
        self._hidden = profile.secret if profile.mechanism is Mechanism.LOW else b""
        try:
            association = await self._carry(session, client.associate(), tap, "association")
        finally:
            self._hidden = b""
        session.client = client
        session.is_proven = False
        session.used_at = _now()
        _log.debug("%s", association.words, extra={"adapter": "dlms", "device": session.device.id})

    def _profile(self, session: _Session) -> Profile:
        """Raises ConfigError."""
        settings = session.settings
        mechanism, protection = MECHANISMS[settings["authentication"]], PROTECTIONS[settings["ciphering"]]
        title = rules.hex_octets(settings["system_title"])
        if session.cipher is None and (protection or mechanism is Mechanism.GMAC):
            for name in ("cipher_key", "authentication_key"):
                if not settings[name]:
                    raise ConfigError("is empty, and this authentication or ciphering needs it", key=name)
            kept = self._context.facts(session.device.id).get(COUNTER)
            counter = max(settings[COUNTER], kept if isinstance(kept, int) else 0)
            session.cipher = Cipher(
                title, rules.hex_octets(settings["cipher_key"]), rules.hex_octets(settings["authentication_key"]),
                counter,
            )  # fmt: skip
        return Profile(
            mechanism=mechanism,
            secret=rules.secret_octets(settings["password"]),
            protection=protection,
            cipher=session.cipher,
            title=title,
            max_pdu=settings["max_pdu"],
            challenge=secrets.token_bytes(dlms.CHALLENGE_OCTETS),
        )

    async def _sign_on(self, session: _Session, line: Line, tap: Tap) -> None:
        """Mode E: from 300 Bd to HDLC at the rate that the meter offers, as soon as the line is quiet. Where it does
        not come to that the meter hears a break. Raises LinkError.
        """
        if not line.has_rate:
            raise LinkError(
                f"{line.name} has no rate that could be switched, which mode E needs. Choose HDLC at once, or an "
                "rfc2217:// address.", LinkReason.BROKEN,
            )  # fmt: skip
        initial = rules.line_format_of(session.settings)
        config = Config(initial=initial, software_parity=session.settings["software_parity"], mode=Mode.E)
        machine = SignOn(config)
        await self._quiet.wait(line, machine.timing, _now() + rules.QUIET_S, self._throw_away)
        await line.set_format(initial)
        conversation = Conversation(line, machine, tap, self._quiet)
        try:
            events = await conversation.drive(machine.sign_on(Job.HDLC, _now()))
        except BaseException:
            await conversation.end()
            raise
        if not any(isinstance(event, HdlcReady) for event in events):
            text = next((event.sentence for event in events if isinstance(event, Failed)), "it offers no HDLC")
            raise LinkError(f"{session.device.name} did not enter HDLC: {text}", LinkReason.SILENT)

    def _throw_away(self, data: bytes) -> None:
        self._context.tap(Direction.IN, data, "unasked, thrown away", link=self._here().name)

    async def _part(self, session: _Session, tap: Tap, *, limit_s: float | None = None) -> None:
        """Release and DISC, each answered within ``limit_s`` or not at all. Never fails."""
        link, client = session.link, session.client
        session.link = session.client = None
        if link is None:
            return
        limit = self._pace.goodbye_s if limit_s is None else limit_s
        try:
            async with asyncio.timeout(2 * limit):
                if client is not None and link.is_open:
                    await self._write(link.send(next(client.release())), "release", tap)
                    await self._hear_goodbye(link, Received, limit, tap)
                closing = link.close()
                if closing:
                    await self._write(closing, "DISC", tap)
                    await self._hear_goodbye(link, Heard, limit, tap)
        except (TimeoutError, LinkError, LocalProtocolError):
            pass  # many meters ignore a release: no error (B3)

    async def _hear_goodbye(self, link: Link, awaited: type[Step], limit: float, tap: Tap) -> None:
        """Until an ``awaited`` step came; a silence is no error."""
        until = _now() + limit
        while (left := until - _now()) > 0:
            try:
                steps = link.feed(await self._here_or_closing().read(left))
            except TimeoutError:
                return
            self._show(steps, tap)
            if any(isinstance(step, awaited | Ended) for step in steps):
                return

    def _here_or_closing(self) -> Line:
        if self._line is None:
            raise LinkError("The connection was closed here.", LinkReason.CLOSED, may_have_arrived=False)
        return self._line

    # ---------------------------------------------------------------- exchanges

    async def perform(
        self, session: _Session, make: Callable[[Client], Exchange[T]], tap: Tap, note: str
    ) -> T:
        """Carry an exchange out; once more on a new association where the meter has forgotten the old one.

        Raises:
            LinkError, MeterRefusal, RemoteProtocolError, LocalProtocolError, ConfigError.
        """
        while True:
            await self._begin(session, tap)
            client = session.client
            assert client is not None
            may_be_old, session.is_proven = session.is_proven, False
            try:
                found = await self._carry(session, make(client), tap, note)
            except _Forgotten:
                if not may_be_old:
                    raise
            except MeterRefusal as exc:
                session.is_proven = True
                if not (may_be_old and exc.is_unassociated):
                    raise
                session.client = session.link = None
            else:
                session.is_proven = True
                return found

    async def _carry(self, session: _Session, exchange: Exchange[T], tap: Tap, note: str) -> T:
        """One exchange from its first APDU to its result."""
        try:
            request = next(exchange)
        except StopIteration as done:
            result: T = done.value
            return result
        try:
            while True:
                answer = await self._ask(session, request, tap, note)
                try:
                    request = exchange.send(answer)
                except StopIteration as done:
                    result = done.value
                    break
            return result
        except (MeterRefusal, LocalProtocolError):
            raise  # both sides know where they are
        except BaseException:
            await self._spoil(session)
            raise
        finally:
            exchange.close()

    async def _spoil(self, session: _Session) -> None:
        """An answer may still come that nobody waits for."""
        is_wrapper = session.link is not None and not session.link.may_repeat
        session.link = session.client = None
        if is_wrapper and not self._is_closing and self._line is not None:
            self._why_closed = (
                f"A request to {session.device.name} was not answered in full; the connection is made anew, because "
                "the old answer could be taken for a new one."
            )
            await self._line.close()

    async def _ask(self, session: _Session, apdu: bytes, tap: Tap, note: str) -> bytes:
        link = session.link
        if link is None:
            raise LinkError("The link was closed before the request could leave.", LinkReason.CLOSED)
        await self._write(link.send(apdu), note, tap)
        step = await self._await(session, Received, tap)
        assert isinstance(step, Received)
        return step.apdu

    async def _await(self, session: _Session, awaited: type[Received] | type[Opened], tap: Tap) -> Step:
        """The awaited step. Silence is answered by repeating, where the link may.

        Raises:
            LinkError: silence, or the meter ended the link.
        """
        link, line = session.link, self._here()
        assert link is not None
        patience = session.settings["answer_s"] * self._pace.second_s
        repeats = session.settings["repeats"] if link.may_repeat else 0
        done = 0
        due = _now() + patience
        last = _now() + NOISE_FACTOR * patience
        while True:
            try:
                steps = link.feed(await line.read(max(0.0, min(due, last) - _now())))
                due = _now() + patience
            except TimeoutError:
                steps = link.flush()
                if _now() >= last or (not steps and done >= repeats):
                    raise self._silence(session, line, done) from None
                if not steps:
                    done += 1
                    await self._write(link.repeat(), "again: no answer", tap)
                due = _now() + patience
            self._show(steps, tap)
            for step in steps:
                match step:
                    case Heard(is_rubbish=False):
                        last = _now() + NOISE_FACTOR * patience
                    case Send(octets, note):
                        await self._write(octets, note, tap)
                    case Ended(text, was_ignored):
                        session.link = session.client = None
                        said = f"{session.device.name}: {text}"
                        if was_ignored:
                            raise _Forgotten(said, LinkReason.REFUSED, may_have_arrived=False)
                        raise LinkError(said, LinkReason.BROKEN)
                    case Received(apdu) if dlms.is_unasked(apdu):
                        continue
                    case Received() | Opened() if isinstance(step, awaited):
                        return step
                    case _:
                        pass

    def _silence(self, session: _Session, line: Line, done: int) -> LinkError:
        tries = f" after {done} repeats" if done else ""
        if session.client is None:
            hint = "Check port, rate, addresses and the optical head, and that no other program uses the meter."
        else:
            hint = "The meter may be busy, or the cable was moved."
        seconds = session.settings["answer_s"]
        text = f"{session.device.name} did not answer on {line.name} within {seconds} s{tries}. {hint}"
        return LinkError(text, LinkReason.SILENT)

    # ---------------------------------------------------------------- the line

    async def _write(self, octets: bytes, note: str, tap: Tap) -> None:
        line = self._here_or_closing()
        tap(Direction.OUT, self._veiled(octets, may_be_part=True), note, link=line.name)
        await line.write(octets)

    def _show(self, steps: Sequence[Step], tap: Tap) -> None:
        line = self._here_or_closing()
        for step in steps:
            if isinstance(step, Heard):
                octets = self._veiled(step.octets, may_be_part=step.is_rubbish)  # it may be our own, reflected
                tap(Direction.IN, octets, step.note, link=line.name)

    def _show_strays(self, session: _Session) -> None:
        """Octets that came while nobody asked. The meter may have ended the link with them."""
        if session.link is None or self._line is None:
            return
        data = self._line.take_waiting()
        if not data:
            return
        steps = session.link.feed(data)
        self._show(steps, self._context.tap)
        if any(isinstance(step, Ended) for step in steps):
            session.link = session.client = None

    def _veiled(self, octets: bytes, *, may_be_part: bool) -> bytes:
        """Without the password of an association request, also where a frame may hold a part of it only."""
        if not self._hidden or len(octets) <= SMALL_FRAME:
            return octets
        if self._hidden in octets:
            return octets.replace(self._hidden, REDACTED)
        return REDACTED if may_be_part else octets

    # ---------------------------------------------------------------- commands

    def _handlers(self) -> Mapping[str, Callable[[Dispatch, Talk], Awaitable[Answer]]]:
        return {
            "READ_OBJECTS": self._read_objects,
            "READ_REGISTERS": self._read_registers,
            "READ_REGISTER": self._read_register,
            "READ_ATTRIBUTE": self._read_attribute,
            "READ_PROFILE_INFO": self._read_profile_info,
            "LOAD_PROFILE": self._load_profile,
            "READ_CLOCK": self._read_clock,
            "SET_CLOCK": self._set_clock,
            "WRITE_ATTRIBUTE": self._write_attribute,
            "CALL_METHOD": self._call_method,
            "DISCONNECT_SUPPLY": self._switch_supply,
            "CONNECT_SUPPLY": self._switch_supply,
        }

    async def _read_objects(self, request: Dispatch, talk: Talk) -> Answer:
        found = await talk.object_list()
        return Answer(
            result=rules.objects_result(found), facts={rules.OBJECTS: rules.objects_fact(found, talk.settings)}
        )  # fmt: skip

    async def _read_registers(self, request: Dispatch, talk: Talk) -> Answer:
        facts: dict[str, Any] = {}
        known = rules.known_objects(self._context.facts(request.device.id), talk.settings)
        if known is None:
            listed = await talk.object_list()
            facts[rules.OBJECTS] = rules.objects_fact(listed, talk.settings)
            known = rules.known_objects(facts, talk.settings) or {}
        wanted = [(number, name) for number in objects.REGISTERS for name in known.get(number, ())]
        wanted = wanted[: rules.MAX_REGISTERS]
        if not wanted:
            text = "The meter's object list holds no register that this client may read."
            return Answer(execution=Execution.FAILURE, code="NO_REGISTERS", text=text, facts=facts)
        identification = await talk.text(Attribute(objects.DATA, _LOGICAL_DEVICE, 2))
        serial = await talk.text(Attribute(objects.DATA, _SERIAL, 2))
        found: list[rules.RegisterRead] = []
        damages: list[str] = []
        for count, (number, name) in enumerate(wanted, 1):
            try:
                found.append(await talk.register(number, name, f"{count} of {len(wanted)}"))
            except (MeterRefusal, RemoteProtocolError) as exc:
                if talk.is_lost:
                    raise
                damages.append(f"{name}: {exc}")
        now = self._context.clock.now()
        result = rules.registers_result(
            found, identification=identification, serial=serial, damages=damages, asked=len(wanted)
        )  # fmt: skip
        facts |= {key: value for key, value in (("identification", identification), ("meter_serial", serial)) if value}
        return Answer(
            result=result, facts=facts, text=" ".join(result["doubts"]),
            samples=rules.register_samples(found, request.device.id, now, request.interaction.id),
        )  # fmt: skip

    async def _read_register(self, request: Dispatch, talk: Talk) -> Answer:
        name = rules.obis_of(request.params["obis"])
        found = await self._find_register(request, talk, name)
        now = self._context.clock.now()
        return Answer(
            result=found.row, samples=rules.register_samples([found], request.device.id, now, request.interaction.id)
        )  # fmt: skip

    async def _find_register(self, request: Dispatch, talk: Talk, name: Obis) -> rules.RegisterRead:
        """Of the class asked for, or of the one the object list says, or of the first that the meter has."""
        if request.params["class"]:
            return await talk.register(request.params["class"], name)
        known = rules.known_objects(self._context.facts(request.device.id), talk.settings) or {}
        listed = [number for number in (*objects.REGISTERS, objects.DATA) if name in known.get(number, ())]
        tried = listed[:1] or [*objects.REGISTERS, objects.DATA]
        for number in tried[:-1]:
            try:
                return await talk.register(number, name)
            except MeterRefusal as exc:
                if exc.code not in _ANOTHER_CLASS:
                    raise
        return await talk.register(tried[-1], name)

    async def _read_attribute(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        class_id, name, number = params["class"], rules.obis_of(params["obis"]), params["attribute"]
        raw = await talk.raw(Attribute(class_id, name.logical_name, number))
        value = await _decoded(raw)
        scaler = None
        if number in objects.SCALED_ATTRIBUTES.get(class_id, ()) and value.number is not None:
            scaler = await talk.scaler(class_id, name)
        return Answer(result=rules.attribute_result(class_id, name, number, value, scaler, raw))

    async def _write_attribute(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        name = rules.obis_of(params["obis"])
        value = dv.from_text(params["type"], params["value"] or "")
        target = Attribute(params["class"], name.logical_name, params["attribute"])
        await talk.set(target, value)
        talk.session.scalers.clear()
        result = rules.attribute_result(params["class"], name, params["attribute"], value, None, dv.encode(value))
        return Answer(result=result, text="The meter took the value.")

    async def _verify_write(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        name = rules.obis_of(params["obis"])
        wanted = dv.from_text(params["type"], params["value"] or "")
        value = await talk.get(Attribute(params["class"], name.logical_name, params["attribute"]))
        result = rules.attribute_result(params["class"], name, params["attribute"], value, None, b"")
        return _took_effect(value == wanted, "The attribute", result)

    async def _call_method(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        name = rules.obis_of(params["obis"])
        parameter = dv.from_text(params["type"], params["value"] or "") if params["type"] else None
        returned = await talk.action(Attribute(params["class"], name.logical_name, params["method"]), parameter)
        method = objects.method_name(params["class"], params["method"])
        result: dict[str, Any] = {
            "summary": f"{method or 'method'} called", "class": params["class"], "obis": str(name),
            "name": objects.name_of(name), "method": params["method"], "method_name": method,
            "value": None if returned is None else dv.shown(returned),
            "type": "" if returned is None else returned.type[:500],
        }  # fmt: skip
        return Answer(result=result)

    # ---------------------------------------------------------------- clock

    async def _read_clock(self, request: Dispatch, talk: Talk) -> Answer:
        time, now = await talk.clock()
        result = rules.clock_result(time, now, is_inverted=talk.session.is_inverted)
        text = rules.deviation_doubt(time, now, is_inverted=talk.session.is_inverted)
        return Answer(result=result, facts={"meter_time": result["meter_time"]}, text=text)

    async def _set_clock(self, request: Dispatch, talk: Talk) -> Answer:
        inverted = talk.session.is_inverted
        old, read_at = await talk.clock()
        before = rules.drift(old, read_at, is_inverted=inverted)
        moment: datetime = request.params["time"] or self._context.clock.now()
        tag = talk.clock_tag
        await talk.set(_CLOCK, Value(tag, old.at(moment, is_inverted=inverted).encode()))
        new, now = await talk.clock()
        result = rules.clock_set_result(old, before, new, now, is_inverted=inverted)
        return Answer(result=result, facts={"meter_time": result["new_time"]})

    async def _verify_clock(self, request: Dispatch, talk: Talk) -> Answer:
        """A clock that was to show this computer's time is right, or one set to a time has gone on from it."""
        time, now = await talk.clock()
        seconds = rules.drift(time, now, is_inverted=talk.session.is_inverted)
        result = rules.clock_result(time, now, is_inverted=talk.session.is_inverted)
        wanted: datetime | None = request.params["time"]
        if wanted is not None and (moment := time.moment(is_inverted=talk.session.is_inverted)) is not None:
            passed = (now - request.interaction.created).total_seconds()
            seconds = (moment - wanted).total_seconds()
            is_right = -rules.CLOCK_RIGHT_S <= seconds <= passed + rules.CLOCK_RIGHT_S
        else:
            is_right = seconds is not None and abs(seconds) <= rules.CLOCK_RIGHT_S
        return _took_effect(is_right, "The clock", result)

    # ---------------------------------------------------------------- supply

    async def _switch_supply(self, request: Dispatch, talk: Talk) -> Answer:
        name = rules.obis_of(request.params["obis"])
        method = 1 if request.spec.name == "DISCONNECT_SUPPLY" else 2
        await talk.action(Attribute(objects.DISCONNECT_CONTROL, name.logical_name, method), rules.ZERO)
        try:
            return await self._relay_moved(request, talk)
        except (MeterRefusal, LinkError, RemoteProtocolError) as exc:
            text = f"The meter took the command. What its relay does could not be read: {exc}"
            return Answer(result=rules.relay_result(None, None), text=text)

    async def _relay_moved(self, request: Dispatch, talk: Talk) -> Answer:
        """Output and state; a relay is given some seconds to move."""
        name = rules.obis_of(request.params["obis"])
        is_connecting = request.spec.name == "CONNECT_SUPPLY"
        output: bool | None = None
        state: int | None = None
        for turn in range(self._pace.relay_tries):
            if turn:
                await asyncio.sleep(self._pace.relay_s * self._pace.second_s)
            value = await talk.get(Attribute(objects.DISCONNECT_CONTROL, name.logical_name, 2))
            output = bool(value.content) if value.tag == dv.BOOLEAN or isinstance(value.content, int) else None
            state = await talk.number(Attribute(objects.DISCONNECT_CONTROL, name.logical_name, 3))
            if output is is_connecting or state == _READY:
                break
        result = rules.relay_result(output, state)
        facts = {"supply": result["supply"]}
        if output is is_connecting:
            return Answer(result=result, facts=facts)
        if is_connecting and state == _READY:
            text = "The meter is ready; somebody has to press its button to connect the supply."
            return Answer(result=result, facts=facts, text=text)
        text = f"The meter took the command, and its supply is still {result['supply']}."
        return Answer(execution=Execution.FAILURE, code="NO_EFFECT", text=text, result=result, facts=facts)

    # ---------------------------------------------------------------- profiles

    async def _read_profile_info(self, request: Dispatch, talk: Talk) -> Answer:
        layout, doubts = await talk.layout(rules.obis_of(request.params["obis"]), with_entries=True)
        return Answer(result=rules.layout_result(layout, doubts), text=" ".join(doubts))

    async def _load_profile(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        layout, doubts = await talk.layout(rules.obis_of(params["obis"]))
        selection = b""
        if params["start"] is not None or params["end"] is not None:
            if layout.clock is None:
                text = "This profile has no column of the clock, so it cannot be read by time. Read it by entries."
                return Answer(execution=Execution.FAILURE, code="NO_CLOCK_COLUMN", text=text)
            selection = await self._range(talk, layout.clock, params["start"], params["end"])
        elif params["first"] is not None or params["last"] is not None:
            selection = dlms.by_entry(params["first"] or 1, params["last"] or 0)
        buffer = await talk.get(Attribute(objects.PROFILE_GENERIC, layout.name.logical_name, 2), selection)
        made = rules.profile_answer(
            buffer, layout, is_inverted=talk.session.is_inverted, device=request.device.id,
            interaction=request.interaction.id, doubts=doubts,
        )  # fmt: skip
        return Answer(result=made.result, samples=made.samples, text=" ".join(made.doubts))

    async def _range(self, talk: Talk, clock: Column, start: datetime | None, end: datetime | None) -> bytes:
        """Times as this meter writes them."""
        style = talk.session.clock
        if style is None:
            try:
                style, _now_here = await talk.clock()
            except MeterRefusal:
                style = CosemTime.of(self._context.clock.now().astimezone().replace(tzinfo=None))
        inverted = talk.session.is_inverted
        first = start if start is not None else _EARLIEST
        last = end if end is not None else self._context.clock.now()
        edges = [Value(dv.OCTET_STRING, style.at(edge, is_inverted=inverted).encode()) for edge in (first, last)]
        return dlms.by_range(clock, edges[0], edges[1])


_LOGICAL_DEVICE: Final = obis.parse("0-0:42.0.0*255").logical_name
_SERIAL: Final = obis.parse("0-0:96.1.0*255").logical_name
_CLOCK: Final = Attribute(objects.CLOCK, objects.CLOCK_NAME, 2)
_ANOTHER_CLASS: Final = ("OBJECT_UNDEFINED", "OBJECT_CLASS_INCONSISTENT", "OBJECT_UNAVAILABLE")
_READY: Final = 2  # control state: ready for reconnection
_EARLIEST: Final = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _decoded(raw: bytes) -> Value:
    return dv.decode(raw) if len(raw) < AT_ONCE else await asyncio.to_thread(dv.decode, raw)


def _took_effect(is_right: bool, what: str, result: Mapping[str, Any]) -> Answer:
    if is_right:
        return Answer(result=result, text=f"{what} is as it was to be.")
    text = f"{what} is not as it was to be."
    return Answer(execution=Execution.FAILURE, code="NO_EFFECT", text=text, result=result)


class Talk:
    """What a command says to one meter. Errors as ``DlmsAdapter.perform``."""

    def __init__(self, adapter: DlmsAdapter, session: _Session, tap: Tap) -> None:
        self._adapter = adapter
        self.session = session
        self._tap = tap
        self.clock_tag = dv.OCTET_STRING

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.session.settings

    @property
    def is_lost(self) -> bool:
        """The association ended with the last failure, so there is no use in going on."""
        return self.session.client is None

    async def raw(self, attribute: Attribute, selection: bytes = b"", note: str = "") -> bytes:
        said = f"GET {attribute.words}{f', {note}' if note else ''}"
        return await self._adapter.perform(
            self.session, lambda client: client.get_raw(attribute, selection), self._tap, said
        )  # fmt: skip

    async def get(self, attribute: Attribute, selection: bytes = b"", note: str = "") -> Value:
        return await _decoded(await self.raw(attribute, selection, note))

    async def set(self, attribute: Attribute, value: Value) -> None:
        said = f"SET {attribute.words}"
        await self._adapter.perform(self.session, lambda client: client.set(attribute, value), self._tap, said)

    async def action(self, method: Attribute, parameter: Value | None) -> Value | None:
        said = f"ACTION {method.words}"
        return await self._adapter.perform(
            self.session, lambda client: client.action(method, parameter), self._tap, said
        )  # fmt: skip

    async def text(self, attribute: Attribute) -> str:
        """A value as text; "" where the meter refuses it."""
        try:
            return rules.value_text(await self.get(attribute), None)[0]
        except MeterRefusal:
            return ""

    async def number(self, attribute: Attribute) -> int | None:
        """A whole number, also of an enum; None where the meter refuses it or it is none."""
        try:
            value = await self.get(attribute)
        except MeterRefusal:
            return None
        return value.content if value.tag == dv.ENUM else rules.number_of(value)

    async def object_list(self) -> tuple[CosemObject, ...]:
        return objects.object_list(await self.get(Attribute(objects.ASSOCIATION_LN, objects.ASSOCIATION_NAME, 2)))

    async def scaler(self, class_id: int, name: Obis, note: str = "") -> Scaler | None:
        """Of a register; None for another class, and where the meter refuses it. Kept while the line is open."""
        attribute = objects.SCALER_ATTRIBUTE.get(class_id)
        if attribute is None:
            return None
        key = class_id, name.logical_name
        if key not in self.session.scalers:
            try:
                structure = await self.get(Attribute(class_id, name.logical_name, attribute), note=note)
            except MeterRefusal as exc:
                if exc.code in _ANOTHER_CLASS:
                    raise
                self.session.scalers[key] = None
            else:
                self.session.scalers[key] = Scaler.of(structure)
        return self.session.scalers[key]

    async def register(self, class_id: int, name: Obis, note: str = "") -> rules.RegisterRead:
        """Scaler, value, and what else the class holds: the time of a maximum, the average before."""
        scaler = await self.scaler(class_id, name, note)
        raw = await self.raw(Attribute(class_id, name.logical_name, 2), note=note)
        value = await _decoded(raw)
        more: list[str] = []
        for attribute in _FURTHER.get(class_id, ()):
            try:
                further = await self.get(Attribute(class_id, name.logical_name, attribute), note=note)
            except MeterRefusal:
                continue
            is_scaled = attribute in objects.SCALED_ATTRIBUTES.get(class_id, ())
            text, unit = rules.value_text(further, scaler if is_scaled else None)
            more.append(f"{text}*{unit}" if unit else text)
        return rules.RegisterRead(class_id, name, value, scaler, raw, tuple(more))

    async def clock(self) -> tuple[CosemTime, datetime]:
        """The meter's time, and this computer's at the middle of the exchange.

        Raises:
            RemoteProtocolError: it is no date-time.
        """
        clock = self._adapter._context.clock
        asked = clock.now()
        value = await self.get(_CLOCK)
        found = dv.time_of(value)
        if found is None:
            raise RemoteProtocolError(f"The meter's clock is no date-time but {value.type}.")
        self.session.clock = found
        self.clock_tag = value.tag if value.tag in (dv.DATE_TIME, dv.OCTET_STRING) else dv.OCTET_STRING
        return found, asked + (clock.now() - asked) / 2

    async def layout(self, name: Obis, *, with_entries: bool = False) -> tuple[rules.Layout, list[str]]:
        """Columns, period and scalers of a profile, and what could not be read."""
        doubts: list[str] = []

        def attribute(number: int) -> Attribute:
            return Attribute(objects.PROFILE_GENERIC, name.logical_name, number)

        columns = objects.columns(await self.get(attribute(3)))
        period = await self.number(attribute(4))
        if period is None:
            doubts.append("The meter does not tell the period of the profile; gaps are not found.")
        scalers: dict[Column, Scaler] = {}
        for column in columns:
            if not column.is_scaled:
                continue
            try:
                scaler = await self.scaler(column.class_id, column.name)
            except MeterRefusal as exc:
                doubts.append(f"{column.name} has no unit: {exc}")
                continue
            if scaler is not None:
                scalers[column] = scaler
        entries = await self.number(attribute(7)) if with_entries else None
        capacity = await self.number(attribute(8)) if with_entries else None
        return rules.Layout(name, columns, period or 0, scalers, entries, capacity), doubts


_FURTHER: Final[Mapping[int, tuple[int, ...]]] = {objects.EXTENDED_REGISTER: (5,), objects.DEMAND_REGISTER: (3, 6)}
