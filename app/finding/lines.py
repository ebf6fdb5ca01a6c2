"""Meters on a line: ports are swept through rates, formats and protocols until something answers.

IEC 62056-21 is asked for first (a sign-on is five octets that no other protocol answers), then HDLC (SNRM and an
association without password), on the network the DLMS wrapper too; the module link where it is asked for. Only reads
leave. Each way is what the adapter itself does for *Test* or *Detect*.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.adapters._iec62056_rules import PLACES, verdict_of
from app.errors import ParameterError, WorkbenchError
from app.finding.search import Feed, Finder, Outcome, Plan, Record, counted, is_unusable, outcome_of
from app.model.command import check_params
from app.model.interaction import Direction, Interaction
from app.ports import Adapter, AdapterContext, AdapterType, Answer, Clock, DeliveryFailure, Dispatch, Execution, Secrets
from app.protocols.rfc1662 import detect_profile
from app.transports.open_line import parse_address
from app.transports.serial_ports import PortInfo, list_ports

IEC62056: Final = "iec62056"
DLMS: Final = "dlms"
QUECPYTHON: Final = "quecpython"
METERS: Final = (IEC62056, DLMS)

HDLC_FORMATS: Final = ("9600 8N1", "19200 8N1", "2400 8N1", "115200 8N1")
MODE_E_AT: Final = "300 7E1"  # where the DLMS adapter signs on
HDLC_PHYSICAL: Final = (16, 17)  # some meters answer only where both parts of the address are named
MODULE_FORMATS: Final = ("115200 8N1", "9600 8N1")  # specs/quecpython-rfc1662.md 1.1
IMEI: Final = "0x280C"  # of a module: every one has it, and reading it changes nothing
ANSWER_S: Final = 1  # for an answer in DLMS: a meter that is there answers in a fraction of it
MODULE_MS: Final = 1500
IEC_TRY_S: Final = 2.2  # a silent setting, the change of the format and the octets of the sign-on included
DLMS_TRY_S: Final = 3.0  # a silent one
MODULE_TRY_S: Final = 2.5
OPEN_S: Final = 12.0  # a driver or serial server that does not open is given up then
FOUND_S: Final = 30.0  # on top: what answers is asked who it is
MOST_S: Final = 900.0
AT_ONCE: Final = 4  # ports
METER_HINT: Final = (
    "Check the head's place (its magnet and direction), the power of the meter and the wiring, then search again."
)
MODULE_HINT: Final = (
    "A module with the stock firmware answers no questions, and its line is deaf until its network is up: it asks the "
    "meter for the serial number when it starts, so start it while the search runs. Check rate and wiring too."
)


async def ports_here() -> tuple[PortInfo, ...]:
    """The serial ports of this computer. Raises LinkError when the system cannot list them."""
    return await asyncio.to_thread(list_ports)


class LineSweep(Finder):
    """Looks for meters on serial ports and lines of the network.

    Args:
        ports: addresses as ``transports.line`` has them; a port that stands there twice is looked at once.
        protocols: keys of adapters, in the order of trying.
    Raises:
        ParameterError: an address is none, or there is no port.
    """

    def __init__(
        self,
        ports: Sequence[str],
        *,
        types: Mapping[str, AdapterType],
        clock: Clock,
        secrets: Secrets | None = None,
        protocols: Sequence[str] = METERS,
    ) -> None:
        super().__init__(types=types, clock=clock, secrets=secrets)
        addresses = [parse_address(port) for port in ports]
        if not addresses:
            text = "No serial port is connected now. Plug the optical head or the adapter in, or enter a port."
            raise ParameterError(text, "port")
        self._ways = {
            one.text: _ways(protocols, has_rate=one.kind != "socket") for one in dict.fromkeys(addresses)
        }  # fmt: skip
        self._hint = MODULE_HINT if QUECPYTHON in protocols else METER_HINT
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @property
    def plan(self) -> Plan:
        """All ports; several are looked at side by side."""
        tries = sum(way.tries for ways in self._ways.values() for way in ways)
        slowest = max(sum(way.longest_s for way in ways) for ways in self._ways.values())
        rounds = -(-len(self._ways) // AT_ONCE)
        longest = min(MOST_S, rounds * (OPEN_S + slowest + FOUND_S))
        silent = rounds * slowest
        what = "; ".join(dict.fromkeys(way.title for ways in self._ways.values() for way in ways))
        text = (
            f"{counted(len(self._ways), 'port', 'ports')} to look at ({', '.join(self._ways)}): {what}. "
            f"At most {tries} tries, about {silent:.0f} s where nothing answers. Only questions are sent; nothing is "
            "written."
        )
        return Plan(text=text, tries=tries, longest_s=longest)

    async def _search(self, feed: Feed) -> str:
        unusable: list[str] = []
        async with asyncio.TaskGroup() as group:
            for port, ways in self._ways.items():
                group.create_task(self._sweep(feed, port, ways, unusable), name=f"sweep {port}")
        made = f"{counted(feed.tried, 'try', 'tries')} on {', '.join(self._ways)}."
        if feed.found:
            return f"Found after {made}"
        titles = "; ".join(dict.fromkeys(way.title for ways in self._ways.values() for way in ways))
        if len(unusable) == len(self._ways):
            return f"No port could be used: {', '.join(unusable)}. What is wrong stands with each try."
        text = f"Nothing answered. {made} Tried: {titles}. {self._hint}"
        return f"{text} Not usable: {', '.join(unusable)}." if unusable else text

    async def _sweep(self, feed: Feed, port: str, ways: Sequence[_Way], unusable: list[str]) -> None:
        async with self._at_once:
            for way in ways:
                try:
                    if await way.go(self, feed, port, self._type(way.key)):
                        return
                except WorkbenchError as exc:
                    feed.tell_try(port, way.title, str(exc), outcome_of(exc))
                    if is_unusable(exc):
                        unusable.append(port)
                        return

    # ---------------------------------------------------------------- for the ways

    @property
    def types(self) -> Mapping[str, AdapterType]:
        """The adapter types there are."""
        return self._types

    def context(self, key: str, settings: Mapping[str, Any], record: Record, port: str) -> AdapterContext:
        """Raises ParameterError."""
        return self._context(key, settings, record, f"the meter at {port}")

    def request(self, adapter_type: AdapterType, context: AdapterContext, command: str, **params: Any) -> Dispatch:
        """A command that belongs to no interaction of the log."""
        device = context.devices[0]
        spec = next(one for one in adapter_type.commands(device, {}) if one.name == command)
        now = self._clock.now()
        row = Interaction(
            id=0, device=device.id, adapter=adapter_type.key, command=command, kind=spec.kind, created=now, updated=now
        )  # fmt: skip
        checked = check_params(spec.params, params, command)
        return Dispatch(interaction=row, device=device, spec=spec, params=checked, attempt=1, tap=context.tap)


async def _submitted(adapter: Adapter, request: Dispatch) -> Answer:
    """One direct command; silence is an answer too. Raises WorkbenchError."""
    try:
        async with adapter.open():
            answer = await adapter.submit(request)
    except DeliveryFailure as exc:
        return Answer(execution=Execution.FAILURE, code=exc.code, text=str(exc))
    assert isinstance(answer, Answer)
    return answer


# ---------------------------------------------------------------- the ways


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way(ABC):
    """One protocol with one or several settings on one port."""

    key: str
    title: str
    tries: int
    longest_s: float

    @abstractmethod
    async def go(self, sweep: LineSweep, feed: Feed, port: str, adapter_type: AdapterType) -> bool:
        """Try, and tell; whether something was found. Raises WorkbenchError: the caller tells it as a failed try."""


class _SignOns(Record):
    """Tells each setting of the detection as soon as the next one begins."""

    def __init__(self, feed: Feed, port: str) -> None:
        super().__init__()
        self._feed = feed
        self._port = port
        self._place = ""

    def __call__(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        place = " ".join(note.split()[-3:])  # the detection ends each note with rate, format and who makes parity
        if direction is Direction.OUT and place != self._place and place[:1].isdigit():
            self.flush()
            self._place = place
        super().__call__(direction, data, note, link=link)

    def flush(self, *, is_identified: bool = False, text: str = "") -> None:
        """The present setting is over."""
        if not self._place:
            return
        sent, got = bytes(self.sent), bytes(self.got)
        verdict = verdict_of(sent, got, is_identified=is_identified)
        words = {"silent": "Nothing came back.", "noise": f"{len(got)} octets came that are no identification."}
        outcome = {"silent": Outcome.SILENT, "identified": Outcome.ANSWERED}.get(verdict, Outcome.FAILED)
        self._feed.tell_try(
            self._port, f"IEC 62056-21 sign-on at {_place_words(self._place)}", text or words.get(verdict, verdict),
            outcome, sent=sent, got=got,
        )  # fmt: skip
        self.sent.clear()
        self.got.clear()
        self._place = ""


def _place_words(place: str) -> str:
    rate, frame, parity = place.split()
    return f"{rate} {frame}, parity by software" if parity == "software" else f"{rate} {frame}"


class _Iec62056(_Way):
    """The adapter's own detection of rate, format and parity (A9)."""

    async def go(self, sweep: LineSweep, feed: Feed, port: str, adapter_type: AdapterType) -> bool:
        settings: dict[str, Any] = {"address": port}
        record = _SignOns(feed, port)
        context = sweep.context(self.key, settings, record, port)
        try:
            answer = await _submitted(adapter_type.create(context), sweep.request(adapter_type, context, "DETECT"))
        except WorkbenchError:
            record.flush()
            raise
        if answer.execution is not Execution.SUCCESS:
            record.flush()
            return False
        identity, at, mode = (str(answer.result[name]) for name in ("identification", "format", "mode"))
        text = f"The meter {identity} answers at {at}, mode {mode}."
        record.flush(is_identified=True, text=text)
        feed.tell_candidate(
            title=f"Meter {identity.removeprefix('/')}", adapter=self.key, settings={**settings, **answer.settings},
            text=text, identity=identity,
        )  # fmt: skip
        if mode == "E" and at == MODE_E_AT and DLMS in sweep.types:
            await _AFTER_SIGN_ON.go(sweep, feed, port, sweep.types[DLMS])  # the same meter also speaks HDLC
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dlms(_Way):
    """The adapter's own test: a link, an association of the public client, the meter's name."""

    settings: Mapping[str, Any]

    async def go(self, sweep: LineSweep, feed: Feed, port: str, adapter_type: AdapterType) -> bool:
        from app.protocols.dlms import MeterRefusal  # its ciphers are slow to load

        settings = {"address": port, **self.settings}
        record = Record()
        context = sweep.context(self.key, {**settings, "answer_s": ANSWER_S, "repeats": 0}, record, port)
        try:
            text = " ".join(await adapter_type.probe(context))
        except MeterRefusal as exc:
            text = f"A DLMS meter answers and does not let the public client in: {exc} Enter client and password."
        except WorkbenchError as exc:
            if is_unusable(exc):
                raise
            outcome = Outcome.FAILED if record.got else outcome_of(exc)
            feed.tell_try(port, self.title, str(exc), outcome, sent=bytes(record.sent), got=bytes(record.got))
            return False
        feed.tell_try(
            port, self.title, text, Outcome.ANSWERED, sent=bytes(record.sent), got=bytes(record.got)
        )  # fmt: skip
        feed.tell_candidate(title=f"DLMS meter at {port}", adapter=self.key, settings=settings, text=text)
        return True


_AFTER_SIGN_ON: Final = _Dlms(
    key=DLMS, title=f"HDLC after a sign-on at {MODE_E_AT}", tries=1, longest_s=DLMS_TRY_S,
    settings={"framing": "hdlc", "opening": "mode_e"},
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module(_Way):
    """The module link from either side: a meter is asked for its serial number, a module for its IMEI."""

    role: str
    line_format: str

    async def go(self, sweep: LineSweep, feed: Feed, port: str, adapter_type: AdapterType) -> bool:
        settings = {"role": self.role, "line": port, "format": self.line_format, "profile": "auto"}
        quiet = {  # nothing is answered or acknowledged in anybody's name
            "answers": "", "unknown": "silent", "event_ack": "none", "at_lines": False, "timeout_ms": MODULE_MS,
        }  # fmt: skip
        record = Record()
        context = sweep.context(self.key, {**settings, **quiet}, record, port)
        is_module_here = self.role == "meter"
        request = (
            sweep.request(adapter_type, context, "GET_PARAMETER", parameter=IMEI)
            if is_module_here
            else sweep.request(adapter_type, context, "READ_SERIAL")
        )
        answer = await _submitted(adapter_type.create(context), request)
        heard = detect_profile(bytes(record.got))
        serial = ""
        if answer.execution is Execution.SUCCESS:
            value = str(answer.result.get("value", ""))
            serial = "" if is_module_here else value
            what = f"module answers, IMEI {value}" if is_module_here else f"meter answers, serial number {value}"
            text = f"A {what}, at {self.line_format}."
        elif heard.frames and is_module_here:
            text = (
                f"Frames of a module came at {self.line_format}; it answers no questions, as the stock firmware does "
                f"not. {heard.sentence}"
            )
        elif heard.frames:
            text = f"Frames came at {self.line_format}, but no serial number. {heard.sentence}"
        else:
            outcome = Outcome.FAILED if record.got else Outcome.SILENT
            feed.tell_try(port, self.title, answer.text, outcome, sent=bytes(record.sent), got=bytes(record.got))
            return False
        feed.tell_try(port, self.title, text, Outcome.ANSWERED, sent=bytes(record.sent), got=bytes(record.got))
        name = f"QuecPython module at {port}" if is_module_here else f"Meter {serial or 'of a module'} at {port}"
        feed.tell_candidate(
            title=name, adapter=self.key, settings=settings, text=text, serial=serial, identity=serial
        )  # fmt: skip
        return True


def _ways(protocols: Sequence[str], *, has_rate: bool) -> tuple[_Way, ...]:
    """In the order of trying."""
    return tuple(way for key in protocols for way in _WAYS[key](has_rate))


def _iec62056_ways(has_rate: bool) -> list[_Way]:
    tries = 2 * (len(PLACES) if has_rate else 2)  # without a rate only parity can differ
    return [_Iec62056(key=IEC62056, title="IEC 62056-21", tries=tries, longest_s=tries * IEC_TRY_S)]


def _module_ways(has_rate: bool) -> list[_Way]:
    return [
        _Module(
            key=QUECPYTHON, title=f"module link at {one}, {_SIDES[role]}", tries=1, longest_s=MODULE_TRY_S, role=role,
            line_format=one,
        )
        for one in (MODULE_FORMATS if has_rate else MODULE_FORMATS[:1])
        for role in _SIDES
    ]  # fmt: skip


_SIDES: Final[Mapping[str, str]] = {"module": "asking a meter", "meter": "asking a module"}


def _dlms_ways(has_rate: bool) -> list[_Way]:
    rows: list[tuple[str, dict[str, Any]]] = []
    if not has_rate:
        rows.append(("DLMS wrapper", {"framing": "wrapper"}))
    formats = HDLC_FORMATS if has_rate else HDLC_FORMATS[:1]
    rows += [
        (f"HDLC at {one}" if has_rate else "HDLC", {"framing": "hdlc", "line_format": one}) for one in formats
    ]  # fmt: skip
    first = {"framing": "hdlc", "line_format": HDLC_FORMATS[0], "address_length": 4}
    rows += [(f"HDLC, physical address {one}", {**first, "physical_address": one}) for one in HDLC_PHYSICAL]
    return [_Dlms(key=DLMS, title=title, tries=1, longest_s=DLMS_TRY_S, settings=given) for title, given in rows]


_WAYS: Final[Mapping[str, Callable[[bool], list[_Way]]]] = {
    IEC62056: _iec62056_ways,
    DLMS: _dlms_ways,
    QUECPYTHON: _module_ways,
}
