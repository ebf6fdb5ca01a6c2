"""LEM DCBM 400/600 over HTTP or HTTPS (specs/lem-dcbm.md).

One lock serves polling and commands: one request in flight, and a command waits at most for the poll cycle in flight.
Two kinds of failure stay apart everywhere (section 4): a transport failure is a LinkError, a response failure a
RemoteProtocolError. Ids, EVSE and identification data of a start are never logged above debug.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from app.adapters import _lem_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._lem_rules import Pace
from app.adapters._live import NeverAsked
from app.adapters._rereading import Unrecorded
from app.errors import ConfigError, LinkError, LinkReason, LocalProtocolError, ParameterError, RemoteProtocolError
from app.model.command import CommandSpec, ParamSpec
from app.model.device import Device
from app.model.interaction import Frame
from app.model.reading import Finding, LinkState, Quantity, SampleSet, Severity
from app.ports import (
    Adapter,
    AdapterContext,
    Answer,
    Dispatch,
    Execution,
    Facts,
    Found,
    Limits,
    LinkChange,
    RetryPolicy,
    Tap,
    Telemetry,
    Uplink,
)
from app.protocols import lem_dcbm as lem
from app.protocols import ocmf
from app.transports.http_link import HttpExchange, HttpLink
from app.transports.tls_trust import PinnedTls

_log = logging.getLogger(__name__)

T = TypeVar("T")
Judge = Callable[[lem.Request, int, bytes], T]
MakeLink = Callable[[lem.Config, PinnedTls | None, Tap], HttpExchange]

VOLTAGE: Final = Quantity("voltage", "V", "DC voltage")
CURRENT: Final = Quantity("current", "A", "DC current")
POWER: Final = Quantity("power", "W", "Power")
IMPORT: Final = Quantity("energy_import", "Wh", "Energy import", "1-0:1.8.0")
EXPORT: Final = Quantity("energy_export", "Wh", "Energy export", "1-0:2.8.0")
TEMPERATURE_HIGH: Final = Quantity("temperature_high", "°C", "Temperature H")
TEMPERATURE_LOW: Final = Quantity("temperature_low", "°C", "Temperature L")

OFFSET_LIMIT_S: Final = lem.CLOCK_OFFSET_LIMIT.total_seconds()


def http_link(config: lem.Config, pin: PinnedTls | None, tap: Tap) -> HttpExchange:
    """The network; replay and tests may put something else in its place."""
    return HttpLink(
        config.host,
        config.port,
        local_address=config.local_address,
        tls=pin,
        timeout_s=config.command_timeout_ms / 1000,
        tap=tap,
        max_body=lem.MAX_BODY_BYTES,
    )


class LemDcbm:
    """AdapterType of the LEM DCBM 400/600."""

    key = "lem-dcbm"
    title = "LEM DCBM 400/600"
    summary = "DC energy meter of charging stations over HTTP or HTTPS, with signed OCMF records."

    def __init__(self, *, pace: Pace | None = None, make_link: MakeLink = http_link) -> None:
        self._pace = pace if pace is not None else Pace()
        self._make_link = make_link
        self._commands: dict[str, tuple[Mapping[str, Any], tuple[CommandSpec, ...]]] = {}

    def form(self) -> tuple[ParamSpec, ...]:
        """The configuration of section 2."""
        return rules.FORM

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """One message at a time; effects are never repeated by the pipeline (the adapter follows section 8)."""
        checked = rules.settings_of(settings)
        return Limits(
            max_in_flight=1,
            accept_timeout_s=rules.read_timeout_s(checked, 4),
            needs_link=True,
            retry=RetryPolicy(retries=0),
        )

    def lane(self, device: Device) -> str:
        """The meter itself is the bottleneck."""
        return device.id

    def connection(self, device: Device) -> str:
        return device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        kept = self._commands.get(device.id)
        if kept is None or kept[0] != device.settings:
            kept = dict(device.settings), rules.commands(device.settings, self._pace)
            self._commands[device.id] = kept
        return kept[1]

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return rules.UNSUPPORTED

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return (POWER.name, VOLTAGE.name, CURRENT.name, IMPORT.name)

    def create(self, context: AdapterContext) -> Adapter:
        return LemAdapter(context, pace=self._pace, make_link=self._make_link)

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """What the meter's answers say by themselves. See ``Rereader``.

        Left out: what the adapter knew from before (serial number, keys and so the verdict on a record, the pin) and
        what this computer's clock decides. Of commands that only write, that the meter took them.
        """
        exchanges = rereading.http_exchanges(frames)
        if not exchanges:
            return None
        try:
            return _REREAD[spec.name](exchanges) if spec.name in _REREAD else None
        except Unrecorded:
            return None

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Read the status once and say what answered. Nothing is written."""
        adapter = LemAdapter(context, pace=self._pace, make_link=self._make_link)
        async with adapter.open():
            return await adapter.look()


class Talk:
    """Requests on behalf of one conversation: a poll cycle, or a command with its own tap."""

    def __init__(self, link: HttpExchange, tap: Tap | None = None) -> None:
        self._link = link
        self._tap = tap

    async def ask(self, request: lem.Request, judge: Judge[T], *, timeout_s: float | None = None) -> T:
        """One request and its judgement.

        Raises:
            LinkError: transport failure. RemoteProtocolError: response failure.
        """
        reply = await self._link.request(
            request.method,
            request.target,
            request.body or None,
            timeout_s=timeout_s,
            max_body=request.max_bytes,
            tap=self._tap,
        )
        return judge(request, reply.status, reply.body)


class _OtherMeter(LinkError):
    """The address answers with another serial number: everything known is void, the connection is made anew."""


@dataclass(frozen=True, slots=True)
class _LastKnown:
    """The record of a running transaction as it was at a sample (section 6, step 3)."""

    transaction_id: str
    record: bytes
    timestamp: str


class LemAdapter(NeverAsked):
    """One live connection. See ``Adapter``."""

    def __init__(self, context: AdapterContext, *, pace: Pace, make_link: MakeLink = http_link) -> None:
        self._context = context
        self._device = context.devices[0]
        self._clock = context.clock
        self._pace = pace
        self._make_link = make_link
        self._config = lem.Config.from_settings(context.settings)
        self._pin: lem.Certificate | None = None
        if self._config.tls:
            self._pin = lem.read_certificate(self._config.tls_certificate)
        self._candidate: lem.Certificate | None = None  # confirmed for switching TLS on
        self._lock = asyncio.Lock()
        self._closing = asyncio.Event()
        self._links: list[HttpExchange] = []  # closed on leaving
        self._link = self._link_with(self._pin)
        self._monitor = lem.TemperatureMonitor(self._config)
        # State of section 5.
        self._status: lem.MeterStatus | None = None
        self._sync: lem.TimeSync | None = None
        self._ongoing = False
        self._current_id = ""
        self._last_known: _LastKnown | None = None
        self._fault = False
        # Ours.
        self._stop_accepted = ""  # the PUT of this stop succeeded; only its record is missing
        self._cable_sent: tuple[str, int] | None = None
        self._min_stop: tuple[str, datetime] | None = None
        self._offset_s: float | None = None  # meter minus computer, when the status was read
        self._clock_doubtful = False  # more than 60 s apart, and nobody has said which clock is right
        self._safe_from = 0.0
        self._status_due = 0.0
        self._record_due = 0.0
        self._raised: set[str] = set()
        self._told: dict[str, float] = {}

    @property
    def meter_id(self) -> str:
        """ "" until the meter is initialised."""
        return self._status.meter_id if self._status is not None else ""

    @property
    def _v2(self) -> bool:
        return self._status is not None and self._status.v2

    def _link_with(self, certificate: lem.Certificate | None) -> HttpExchange:
        pin = PinnedTls.from_der(certificate.der) if certificate is not None else None
        link = self._make_link(self._config, pin, self._context.tap)
        self._links.append(link)
        return link

    async def _drop(self, link: HttpExchange) -> None:
        if link in self._links:  # else the connection was closed meanwhile, and the link with it
            self._links.remove(link)
        await link.close()

    # ---------------------------------------------------------------- the port

    def open(self) -> AbstractAsyncContextManager[None]:
        """Ready at once; the meter is initialised inside ``uplinks``. Leaving ends waits and the request in flight."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._closing.set()
            while self._links:
                await self._links.pop().close()

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """Initialisation (section 5), then the poll loop (section 6). Ends only by an error or by closing."""
        for note in self._config.notes:
            _log.info("%s", note, extra={"adapter": LemDcbm.key, "device": self._device.id})
        async for uplink in self._initialise():
            yield uplink
        while True:
            await self._pause(self._config.poll_interval_ms / 1000)  # a late cycle is not caught up
            for uplink in await self._cycle():
                yield uplink

    async def submit(self, request: Dispatch) -> Answer:
        """Carry out one command; the answer is direct."""
        handler = self._handlers().get(request.spec.name)
        if handler is None:
            raise LocalProtocolError(f"The LEM DCBM adapter has no command {request.spec.name}.")
        self._check_open()
        if self._status is None:
            return _unexpected(rules.NOT_INITIALISED)
        async with self._lock:
            self._check_open()
            return await handler(request, Talk(self._link, request.tap))

    async def verify(self, request: Dispatch) -> Answer | None:
        """Read back whether a start, stop or TLS switch of unknown outcome worked; only GETs are sent."""
        if self._status is None:
            return None
        async with self._lock:
            self._check_open()
            talk = Talk(self._link, request.tap)
            match request.spec.name:
                case "START_TRANSACTION":
                    return await self._verify_start(request, talk)
                case "STOP_TRANSACTION":
                    return await self._verify_stop(request, talk)
                case "SET_IDENTIFICATION_TYPE":
                    found = await talk.ask(lem.get_settings(), lem.judge_settings)
                    wanted = request.params["identification_type"]
                    return _took_effect(found.identification_type == wanted, "The identification type")
                case "SET_TLS":
                    return await self._verify_tls(request)
                case _:
                    return None

    def _handlers(self) -> Mapping[str, Callable[[Dispatch, Talk], Awaitable[Answer]]]:
        return {
            "READ_STATUS": self._read_status,
            "READ_LIVE": self._read_live,
            "READ_LEGAL": self._read_legal,
            "READ_SETTINGS": self._read_settings,
            "READ_CERTIFICATE": self._read_certificate,
            "READ_RECORD": self._read_record,
            "READ_LOGBOOK": self._read_logbook,
            "START_TRANSACTION": self._start,
            "STOP_TRANSACTION": self._stop,
            "SYNC_TIME": self._sync_time,
            "SET_TIME": self._set_time,
            "SET_NTP": self._set_ntp,
            "SET_TIMEZONE": self._set_timezone,
            "SET_DST": self._set_dst,
            "SET_TLS": self._set_tls,
            "SET_IDENTIFICATION_TYPE": self._set_identification_type,
        }

    # ---------------------------------------------------------------- waiting, closing

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise LinkError("The connection was closed here.", LinkReason.CLOSED, may_have_arrived=False)

    async def _pause(self, seconds: float) -> None:
        """Wait; ends at once with LinkError when the connection is closed (section 2)."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._closing.wait()
        except TimeoutError:
            return
        self._check_open()

    # ---------------------------------------------------------------- initialisation (section 5)

    async def _initialise(self) -> AsyncIterator[Uplink]:
        delay = self._config.initial_retry_delay_ms / 1000
        attempts = 1 + self._config.initial_retries
        while True:
            failure: Exception | None = None
            for name, step in self._initial_steps():
                for attempt in range(1, attempts + 1):
                    try:
                        async with self._lock:
                            await step(Talk(self._link))
                    except (LinkError, RemoteProtocolError) as exc:
                        self._check_open()
                        failure = exc
                    else:
                        failure = None
                        break
                    text = f"Try {attempt} of {attempts}, {name}: {failure}"
                    yield LinkChange(self._device.id, LinkState.CONNECTING, text)
                    if attempt < attempts:
                        await self._pause(delay)
                if failure is not None:
                    break
            if failure is None:
                break
            text = f"The meter could not be initialised: {failure} It is tried again in {delay:g} s."
            yield LinkChange(self._device.id, LinkState.FAULT, text)
            for uplink in self._raise("INITIALISATION", Severity.BAD, text):
                yield uplink
            await self._pause(delay)
            yield LinkChange(self._device.id, LinkState.CONNECTING, "Starting over.")
        for uplink in self._initialised():
            yield uplink

    def _initial_steps(self) -> list[tuple[str, Callable[[Talk], Awaitable[None]]]]:
        steps: list[tuple[str, Callable[[Talk], Awaitable[None]]]] = []
        if self._config.ocmf_identification_type >= 0:
            steps.append(("identification type", self._enforce_identification_type))
        steps.append(("status and transaction", self._adopt_status))
        return steps

    async def _enforce_identification_type(self, talk: Talk) -> None:
        wanted = self._config.ocmf_identification_type
        found = await talk.ask(lem.get_settings(), lem.judge_settings)
        if found.identification_type != wanted:
            await talk.ask(lem.put_identification_type(wanted), lem.judge_written)

    async def _adopt_status(self, talk: Talk) -> None:
        """Status and legal belong to one attempt: nothing is kept when either fails."""
        status = await talk.ask(lem.get_status(), lem.judge_status)
        legal = await talk.ask(lem.get_legal(status.v2), lem.judge_legal)
        if self._status is not None and status.meter_id != self._status.meter_id:
            raise _OtherMeter(
                f"Another meter answers at {self._config.host}: {status.meter_id[:40]} instead of "
                f"{self._status.meter_id[:40]}. Check the network; the connection is made anew.",
                LinkReason.BROKEN,
            )
        self._take_status(status)
        self._take_current(legal)

    def _take_status(self, status: lem.MeterStatus) -> None:
        self._status = status
        self._ongoing = status.ongoing
        self._status_due = self._clock.monotonic() + self._pace.status_s
        offset = status.clock_offset(self._clock.now())
        self._offset_s = None if offset is None else offset.total_seconds()
        if self._offset_s is not None and abs(self._offset_s) <= OFFSET_LIMIT_S:
            self._clock_doubtful = False

    def _take_current(self, legal: lem.LegalState) -> None:
        """An id that could not be sent back is as good as unknown."""
        if not legal.known:
            return
        try:
            lem.check_transaction_id(legal.transaction_id)
        except ParameterError:
            self._current_id = ""
        else:
            self._current_id = legal.transaction_id

    def _initialised(self) -> list[Uplink]:
        now = self._clock.monotonic()
        self._safe_from = now + self._pace.unsafe_s
        self._sync = lem.TimeSync(
            ntp=self._config.ntp_mode,
            initialised=now,
            unsafe_s=self._pace.unsafe_s,
            retry_s=self._pace.sync_retry_s,
            renewal_s=self._pace.sync_renewal_s,
        )
        status = self._status
        assert status is not None
        offset = self._offset_s
        self._clock_doubtful = offset is not None and abs(offset) > OFFSET_LIMIT_S and not self._config.ntp_mode
        facts = {**self._facts(), "public_key_ocmf": status.public_key_ocmf, "public_key": status.public_key}
        out: list[Uplink] = [Facts(self._device.id, facts), LinkChange(self._device.id, LinkState.ONLINE, "")]
        out += self._clear("INITIALISATION", "The meter is initialised.")
        out += self._status_findings()
        if self._clock_doubtful:
            out += self._raise(
                "CLOCK_OFFSET",
                Severity.WARNING,
                f"The meter's clock and this computer's are {abs(offset or 0):.0f} s apart. Check this computer's "
                "clock, then synchronise by hand; until then the meter is not synchronised by itself.",
            )
        if status.ongoing:
            name = self._current_id or "of unknown id"
            text = f"A transaction is running on the meter: {name}. It can be stopped."
            out += self._raise("TRANSACTION_RUNNING", Severity.WARNING, text)
        if self._device.serial and self._device.serial != status.meter_id:
            text = f"The meter calls itself {status.meter_id[:40]}, the device tree says {self._device.serial}."
            out += self._raise("SERIAL_DIFFERS", Severity.WARNING, text)
        if not status.keys.agrees:
            text = "The two forms of the meter's public key do not agree; its records may not verify."
            out += self._raise("KEYS_DISAGREE", Severity.WARNING, text)
        if self._pin is not None:
            out += [
                uplink
                for text in self._pin.warnings(self._clock.now())
                for uplink in self._raise("TLS_CERTIFICATE", Severity.WARNING, text)
            ]
        return out

    # ---------------------------------------------------------------- polling (section 6)

    async def _cycle(self) -> list[Uplink]:
        async with self._lock:
            talk = Talk(self._link)
            out: list[Uplink] = []
            try:
                await self._poll_once(talk, out)
            except _OtherMeter:
                raise
            except LinkError as exc:
                self._check_open()
                out += self._lost(exc)
            except RemoteProtocolError as exc:
                out += self._response_error(exc)
            return out

    async def _poll_once(self, talk: Talk, out: list[Uplink]) -> None:
        out += await self._periodic_sync(talk)
        sample = await talk.ask(lem.get_live(self._v2), self._judge_live)
        out += self._clear("RESPONSE_ERROR", "The meter answers properly again.")
        if self._fault:
            await self._recover(talk, out)
        out.append(Telemetry(self._samples(sample)))
        now = self._clock.monotonic()
        for event in self._monitor.feed(sample.max_temperature, now):
            out += self._temperature(event)
        await self._keep_record(talk, sample)
        if now >= self._status_due:
            await self._refresh(talk, out)

    def _judge_live(self, request: lem.Request, code: int, body: bytes) -> lem.LiveSample:
        return lem.judge_live(request, code, body, self.meter_id)

    async def _recover(self, talk: Talk, out: list[Uplink]) -> None:
        """The first good sample after a fault: what happened meanwhile is read before the fault is cleared."""
        try:
            await self._adopt_status(talk)
        except RemoteProtocolError as exc:
            out += self._response_error(exc)
            self._status_due = 0.0
        self._fault = False
        out.append(Facts(self._device.id, self._facts()))
        out.append(LinkChange(self._device.id, LinkState.ONLINE, ""))
        out += self._clear("COMMUNICATION_FAULT", "The meter answers again.")
        out += self._status_findings()

    async def _refresh(self, talk: Talk, out: list[Uplink]) -> None:
        before = self._ongoing
        status = await talk.ask(lem.get_status(), lem.judge_status)
        if status.ongoing != before or status.meter_id != self.meter_id or self._status_due == 0.0:
            await self._adopt_status(talk)
        else:
            self._take_status(status)
        out.append(Facts(self._device.id, self._facts()))
        out += self._status_findings()

    async def _keep_record(self, talk: Talk, sample: lem.LiveSample) -> None:
        """Every 10 s while a transaction runs; failures are only logged, at debug because a body may hold ids."""
        now = self._clock.monotonic()
        if not self._ongoing or not self._current_id or now < self._record_due:
            return
        self._record_due = now + self._pace.record_s
        try:
            record = await talk.ask(lem.get_ocmf(self._v2, transaction_id=self._current_id), lem.judge_ocmf)
        except (LinkError, RemoteProtocolError) as exc:
            self._check_open()
            _log.debug("the running record could not be read: %s", exc, extra={"adapter": LemDcbm.key})
            return
        self._last_known = _LastKnown(self._current_id, record, sample.timestamp)

    def _lost(self, exc: LinkError) -> list[Uplink]:
        """One communication fault, silent until cured (section 6)."""
        if self._fault:
            return []
        self._fault = True
        text = f"Communication timed out. {exc}"
        return [
            LinkChange(self._device.id, LinkState.FAULT, text),
            *self._raise("COMMUNICATION_FAULT", Severity.BAD, text),
        ]

    def _response_error(self, exc: RemoteProtocolError) -> list[Uplink]:
        """The same complaint is told once a minute at most."""
        what = str(exc).partition(" Body: ")[0]
        now = self._clock.monotonic()
        if now < self._told.get(what, now):
            return []
        if len(self._told) > 64:
            self._told.clear()
        self._told[what] = now + self._pace.repeat_error_s
        return self._raise("RESPONSE_ERROR", Severity.WARNING, str(exc), again=True)

    def _temperature(self, event: lem.TemperatureEvent) -> list[Uplink]:
        code = f"TEMPERATURE_{event.level.name}"
        if not event.raised:
            return self._clear(code, event.sentence)
        is_error = event.level is lem.TemperatureLevel.ERROR
        return self._raise(code, Severity.BAD if is_error else Severity.WARNING, event.sentence)

    def _samples(self, sample: lem.LiveSample, interaction: int | None = None) -> SampleSet:
        temperatures = dict(sample.temperatures)
        values: tuple[tuple[Quantity, Decimal], ...] = (
            (VOLTAGE, sample.voltage_v),
            (CURRENT, sample.current_a),
            (POWER, sample.power_w),
            (IMPORT, sample.energy_import_wh),
            (EXPORT, sample.energy_export_wh),
            (TEMPERATURE_HIGH, temperatures["temperatureH"]),
            (TEMPERATURE_LOW, temperatures["temperatureL"]),
        )
        return SampleSet(
            device=self._device.id,
            received=self._clock.now(),
            values=values,
            meter_time=_utc(sample.time),
            meter_time_text=sample.timestamp,
            interaction=interaction,
        )

    # ---------------------------------------------------------------- facts and findings

    def _facts(self) -> dict[str, Any]:
        status = self._status
        if status is None:
            return {}
        offset = self._offset_s
        return {
            "meter_id": status.meter_id,
            "serial": status.meter_id,
            "firmware": status.firmware,
            "v2": status.v2,
            "versions": dict(status.versions),
            "ongoing": self._ongoing,
            "current_transaction": self._current_id,
            "status_value": status.status.value,
            "status_flags": {flag.name: flag.on for flag in status.status.flags},
            "status_words": list(status.status.words),
            "error_words": list(status.errors.words),
            "meter_time": status.time_text,
            "clock_offset_s": None if offset is None else round(offset, 3),
            "stored_transactions": status.stored,
            "tls": self._pin is not None,
        }

    def _finding(self, code: str, severity: Severity, text: str, *, cleared: bool = False) -> Found:
        return Found(
            Finding(
                at=self._clock.now(), device=self._device.id, severity=severity, code=code, text=text, cleared=cleared
            )
        )

    def _raise(self, code: str, severity: Severity, text: str, *, again: bool = False) -> list[Uplink]:
        if code in self._raised and not again:
            return []
        self._raised.add(code)
        return [self._finding(code, severity, text)]

    def _clear(self, code: str, text: str) -> list[Uplink]:
        if code not in self._raised:
            return []
        self._raised.discard(code)
        return [self._finding(code, Severity.INFO, text, cleared=True)]

    def _status_findings(self) -> list[Uplink]:
        status = self._status
        if status is None:
            return []
        out: list[Uplink] = []
        odd = [
            state.words
            for state in status.status.flags
            if not state.nominal and state.name != "transactionIsOnGoing"  # 21 is a transaction running normally
        ]
        if odd:
            out += self._raise("METER_STATUS", Severity.WARNING, "The meter reports: " + " ".join(odd))
        else:
            out += self._clear("METER_STATUS", "The meter's status is nominal again.")
        if status.errors.words:
            text = "The meter reports errors and signs nothing: " + " ".join(status.errors.words)
            out += self._raise("METER_ERROR", Severity.BAD, text)
        else:
            out += self._clear("METER_ERROR", "The meter reports no error any more.")
        if not self._ongoing:
            out += self._clear("TRANSACTION_RUNNING", "No transaction is running any more.")
        if not self._clock_doubtful:
            out += self._clear("CLOCK_OFFSET", "The meter's clock was set, or agrees with this computer's.")
        return out

    # ---------------------------------------------------------------- time (section 7)

    async def _synchronise(self, talk: Talk, *, force: bool = False) -> int:
        """One sync; the result is the number of PUTs. Every failure is raised."""
        sync = self._sync
        if sync is None or not (force or sync.wanted_before_start()):
            return 0
        first = self._clock.monotonic()
        planned = lem.sync_requests(self._config, self._clock.now())
        for number in range(len(planned)):
            # Built again just before each sending, so that the time is that of the moment.
            request = lem.sync_requests(self._config, self._clock.now())[number]
            await talk.ask(request, lem.judge_written)
        sync.succeeded(first, self._clock.monotonic())
        self._clock_doubtful = False
        self._status_due = 0.0
        return len(planned)

    async def _periodic_sync(self, talk: Talk) -> list[Uplink]:
        sync = self._sync
        if sync is None or self._clock_doubtful:
            return []
        if not sync.periodic_due(self._clock.monotonic(), ongoing=self._ongoing):
            return []
        try:
            await self._synchronise(talk)
        except RemoteProtocolError as exc:
            sync.refused(self._clock.monotonic())
            _log.info("the meter refused the periodic time sync", extra={"adapter": LemDcbm.key})
            return self._raise("TIME_SYNC", Severity.WARNING, f"The clock could not be synchronised: {exc}")
        return self._clear("TIME_SYNC", "The clock is synchronised.")

    # ---------------------------------------------------------------- reads

    async def look(self) -> list[str]:
        """For the dialog's *Test*: what answers, in sentences."""
        talk = Talk(self._link)
        status = await talk.ask(lem.get_status(), lem.judge_status)
        generation = "v2" if status.v2 else "v1"
        said = [f"Meter {status.meter_id} answers, firmware {status.firmware} (interface {generation})."]
        offset = status.clock_offset(self._clock.now())
        if offset is None:
            said.append("It does not say what time it is.")
        else:
            said.append(f"Its clock differs from this computer's by {offset.total_seconds():+.1f} s.")
        said += status.status.words or ["Its status is nominal: ready."]
        said += status.errors.words
        if not status.keys.agrees:
            said.append("The two forms of its public key do not agree.")
        if self._pin is not None:
            said.append(f"The connection is encrypted; the certificate is the pinned one ({self._pin.sha256}).")
            said += self._pin.warnings(self._clock.now())
        return said

    async def read_sample(self) -> lem.LiveSample:
        """One live sample at driver level; its meter id is empty before initialisation."""
        async with self._lock:
            return await Talk(self._link).ask(lem.get_live(self._v2), self._judge_live)

    async def _read_status(self, request: Dispatch, talk: Talk) -> Answer:
        await self._adopt_status(talk)
        assert self._status is not None
        findings = tuple(up.finding for up in self._status_findings() if isinstance(up, Found))
        return Answer(result=self._status.to_json(), facts=self._facts(), findings=findings)

    async def _read_live(self, request: Dispatch, talk: Talk) -> Answer:
        sample = await talk.ask(lem.get_live(self._v2), self._judge_live)
        return Answer(result=sample.to_json(), samples=(self._samples(sample, request.interaction.id),))

    async def _read_legal(self, request: Dispatch, talk: Talk) -> Answer:
        chosen, index = request.params.get("transaction_id") or "", request.params.get("index")
        legal = await talk.ask(lem.get_legal(self._v2, transaction_id=chosen, index=index), lem.judge_legal)
        if not chosen and index is None:
            self._take_current(legal)
        text = "" if legal.known else "The meter does not offer its transaction document."
        return Answer(result=legal.to_json(), text=text, facts=self._transaction_facts())

    async def _read_settings(self, request: Dispatch, talk: Talk) -> Answer:
        found = (await talk.ask(lem.get_settings(), lem.judge_settings)).to_json()
        return Answer(result=found, facts={"settings": found})

    async def _read_certificate(self, request: Dispatch, talk: Talk) -> Answer:
        found = await talk.ask(lem.get_certificate(), lem.judge_certificate)
        shown = self._certificate_json(found)
        return Answer(result=shown, facts={"certificate": found.pem, "certificate_fingerprint": found.sha256})

    def _certificate_json(self, certificate: lem.Certificate) -> dict[str, Any]:
        return {
            **_certificate_result(certificate),
            "warnings": list(certificate.warnings(self._clock.now())),
            "pinned": self._pin is not None and certificate.der == self._pin.der,
        }

    async def _read_record(self, request: Dispatch, talk: Talk) -> Answer:
        chosen, index = request.params.get("transaction_id") or "", request.params.get("index")
        try:
            record = await talk.ask(lem.get_ocmf(self._v2, transaction_id=chosen, index=index), lem.judge_ocmf)
        except lem.UnexpectedStatus as exc:
            if exc.received != 404:
                raise
            return _no("NOT_FOUND", "The meter has no such record.")
        return Answer(result=self._record_json(record, chosen)[0])

    async def _read_logbook(self, request: Dispatch, talk: Talk) -> Answer:
        timeout_s = max(self._pace.logbook_s, self._config.command_timeout_ms / 1000)
        logbook = await talk.ask(lem.get_logbook(), lem.judge_logbook, timeout_s=timeout_s)
        return Answer(result=_logbook_result(logbook), text=f"{len(logbook.entries)} events.")

    def _record_json(
        self, record: bytes, transaction_id: str, *, intermediate: bool = False
    ) -> tuple[dict[str, Any], ocmf.Verification]:
        """A record with its verdict. Trust is more than integrity only when a commissioning key equals the used one."""
        key = self._status.public_key_ocmf if self._status is not None else ""
        stored = self._device.attributes.get("public_key")
        trusted = (stored,) if isinstance(stored, str) and stored.strip() else ()
        verdict = ocmf.verify(record, key, origin=ocmf.KeyOrigin.METER, trusted=trusted)
        result: dict[str, Any] = {
            "transaction_id": transaction_id,
            **_record_result(record),
            "public_key": key,
            "intermediate": intermediate,
            "verification": verdict.to_json(),
            "billable": verdict.billable and not intermediate,
        }
        return result, verdict

    # ---------------------------------------------------------------- start (section 8.1)

    async def _start(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        start = lem.StartRequest(
            evse_id=params.get("evse_id") or "",
            transaction_id=params["transaction_id"],
            identification_data=params.get("identification_data") or "",
            tariff_text=params.get("tariff_text") or "",
            tariff_id=params.get("tariff_id"),
            cable_id=params.get("cable_id"),
        )
        warnings = list(lem.check_start(start, self._config, v2=self._v2))
        post = lem.start_transaction(start, self._config, self._v2)
        failed = f"Failed to start transaction {start.transaction_id}"
        if self._status is not None:
            warnings += self._status.start_warnings
        # Whatever comes of it, the next poll cycle reads status and transaction again.
        self._status_due = 0.0
        if self._ongoing and self._current_id:
            try:
                await talk.ask(lem.stop_transaction(self._current_id, self._v2), lem.judge_stop)
            except lem.UnexpectedStatus as exc:
                warnings.append(f"The transaction that was running could not be stopped: {exc}")
            except (LinkError, RemoteProtocolError) as exc:
                self._check_closed(exc)
                return _unexpected(f"{failed}: stopping the running transaction failed: {exc}", {"warnings": warnings})
            else:
                self._ongoing = False
                warnings.append(f"The transaction that was running was stopped first: {self._current_id}.")
        last: Exception | None = None
        may_have_started = False
        attempts = 1 + self._config.transaction_retries
        for attempt in range(1, attempts + 1):
            posting = False
            try:
                await self._synchronise(talk)
                posting = True
                answer = await talk.ask(post, lem.judge_start)
            except (LinkError, RemoteProtocolError) as exc:
                last = exc
                may_have_started = may_have_started or (posting and _may_have_arrived(exc))
                self._check_closed(exc, may_have_arrived=may_have_started)
            else:
                return self._started(start, answer, attempt, warnings)
            if attempt < attempts:
                await self._pause_between(self._config.transaction_retry_delay_ms / 1000, may_have_started)
        text = f"{failed}: {last}"
        if may_have_started:
            text += " The last status tells whether it runs all the same."
        execution = Execution.UNKNOWN if may_have_started else Execution.FAILURE
        return _unexpected(text, {"warnings": warnings, "may_have_started": may_have_started}, execution)

    def _started(self, start: lem.StartRequest, answer: lem.StartAnswer, attempt: int, warnings: list[str]) -> Answer:
        now = self._clock.now()
        earliest, latest = lem.stop_window(now)
        self._ongoing = True
        self._current_id = start.transaction_id
        self._last_known = None
        self._record_due = 0.0
        self._stop_accepted = ""
        cable = self._config.cable_id if start.cable_id is None else start.cable_id
        self._cable_sent = (start.transaction_id, cable)
        self._min_stop = (start.transaction_id, now + lem.MIN_TRANSACTION)
        return Answer(
            result={
                "status": "OK",
                "transaction_id": start.transaction_id,
                "transaction_min_stop_time": earliest,
                "transaction_max_stop_time": latest,
                "attempts": attempt,
                "meter_answer": answer.to_json(),
                "warnings": warnings,
            },
            text=" ".join(warnings),
            facts=self._transaction_facts(),
        )

    def _transaction_facts(self) -> dict[str, Any]:
        return {"ongoing": self._ongoing, "current_transaction": self._current_id}

    def _check_closed(self, exc: Exception, *, may_have_arrived: bool | None = None) -> None:
        """Closing the device ends a command with what is known about its bytes."""
        if self._closing.is_set():
            arrived = _may_have_arrived(exc) if may_have_arrived is None else may_have_arrived
            raise LinkError("The connection was closed here.", LinkReason.CLOSED, may_have_arrived=arrived) from exc

    async def _pause_between(self, seconds: float, may_have_arrived: bool) -> None:
        try:
            await self._pause(seconds)
        except LinkError as exc:
            self._check_closed(exc, may_have_arrived=may_have_arrived)

    # ---------------------------------------------------------------- stop (section 8.2)

    async def _stop(self, request: Dispatch, talk: Talk) -> Answer:
        given = request.params.get("transaction_id") or ""
        if not given and not self._ongoing:
            return _unexpected(rules.NOTHING_OPEN)
        chosen = given or self._current_id
        if not chosen:
            return _unexpected("Failed to stop transaction: the meter does not tell the id of the one that runs.")
        is_own = chosen == self._current_id
        put = lem.stop_transaction(chosen, self._v2)
        get = lem.get_ocmf(self._v2, transaction_id=chosen)
        must_put = (self._ongoing or not is_own) and chosen != self._stop_accepted
        warnings: list[str] = []
        if self._min_stop is not None and self._min_stop[0] == chosen and self._clock.now() < self._min_stop[1]:
            warnings.append("The transaction lasted less than two minutes, which wears the meter's memory.")
        self._status_due = 0.0
        document: lem.LegalDocument | None = None
        failure: Exception | None = None
        attempts = 1 + self._config.transaction_retries
        may_have_arrived = False
        for attempt in range(1, attempts + 1):
            try:
                if must_put:
                    document = await talk.ask(put, lem.judge_stop)
                    must_put = False
                    may_have_arrived = True
                    self._stop_accepted = chosen
                record = await talk.ask(get, lem.judge_ocmf)
            except (LinkError, RemoteProtocolError) as exc:
                failure = exc
                may_have_arrived = may_have_arrived or (must_put and _may_have_arrived(exc))
                self._check_closed(exc, may_have_arrived=may_have_arrived)
            else:
                if is_own:
                    self._ongoing = False
                return self._stopped(chosen, record, document, warnings)
            if attempt < attempts:
                await self._pause_between(self._config.transaction_retry_delay_ms / 1000, may_have_arrived)
        if not isinstance(failure, LinkError):
            return _unexpected(f"Failed to stop transaction {chosen}: {failure}", {"warnings": warnings})
        kept = self._last_known
        if kept is not None and kept.transaction_id == chosen:
            return self._intermediate(kept, document, warnings)
        execution = Execution.UNKNOWN if may_have_arrived else Execution.FAILURE
        text = f"Failed to stop transaction {chosen} - connection to device failed: {failure}"
        return _unexpected(text, {"warnings": warnings, "may_have_stopped": may_have_arrived}, execution)

    def _stopped(self, chosen: str, record: bytes, document: lem.LegalDocument | None, warnings: list[str]) -> Answer:
        result, verdict = self._record_json(record, chosen)
        cable = self._config.cable_id
        if self._cable_sent is not None and self._cable_sent[0] == chosen:
            cable = self._cable_sent[1]
        status = document.transaction_status if document is not None else None
        checks = lem.check_after_stop(status, verdict.record, cable_id=cable, meter_id=self.meter_id)
        warnings += [check.sentence for check in checks]
        if any(check.code in (lem.StopFindingCode.FLAGS, lem.StopFindingCode.SERIAL) for check in checks):
            result["billable"] = False  # section 9: 17 at the end = successful and billable
        if verdict.verdict is not ocmf.Verdict.VALID:
            warnings.append(f"The signed record is not verified: {verdict.sentence}")
        warnings += [finding.sentence for finding in verdict.findings]
        return Answer(
            result={
                "status": "OK",
                **result,
                **_signed_meter_value(result, verdict),
                "checks": lem.plain(checks),
                "document": document.to_json() if document is not None else None,
                "warnings": warnings,
            },
            text=" ".join(warnings),
            facts=self._transaction_facts(),
        )

    def _intermediate(self, kept: _LastKnown, document: lem.LegalDocument | None, warnings: list[str]) -> Answer:
        """The transport failed: the record of a sample stands in, without end reading and not billable (D)."""
        result, verdict = self._record_json(kept.record, kept.transaction_id, intermediate=True)
        warnings.append(
            f"The meter could not be reached. This is the record as it was at {kept.timestamp}: an intermediate one, "
            "without an end reading, not billable. Stop again when the meter can be reached."
        )
        return Answer(
            result={
                "status": "OK",
                **result,
                **_signed_meter_value(result, verdict),
                "timestamp": kept.timestamp,
                "document": document.to_json() if document is not None else None,
                "warnings": warnings,
            },
            code="INTERMEDIATE",
            text=" ".join(warnings),
        )

    # ---------------------------------------------------------------- reading back

    async def _verify_start(self, request: Dispatch, talk: Talk) -> Answer | None:
        status = await talk.ask(lem.get_status(), lem.judge_status)
        legal = await talk.ask(lem.get_legal(status.v2), lem.judge_legal)
        if status.meter_id != self.meter_id:
            return None
        wanted = request.params["transaction_id"]
        if legal.known and legal.transaction_id == wanted:
            self._take_status(status)
            self._take_current(legal)
            runs = "It is running." if status.ongoing else "It has ended since."
            document = legal.document.to_json() if legal.document is not None else None
            return Answer(
                result={"status": "OK", "transaction_id": wanted, "document": document, "ongoing": status.ongoing},
                text=f"The meter knows the transaction: the start took effect. {runs}",
                facts=self._facts(),
            )
        if not legal.known and status.ongoing:
            return None  # something runs, and the meter does not tell what
        self._take_status(status)
        self._take_current(legal)
        return Answer(
            execution=Execution.FAILURE,
            code="NO_EFFECT",
            text="The meter does not know the transaction: the start had no effect.",
            facts=self._facts(),
        )

    async def _verify_stop(self, request: Dispatch, talk: Talk) -> Answer | None:
        status = await talk.ask(lem.get_status(), lem.judge_status)
        legal = await talk.ask(lem.get_legal(status.v2), lem.judge_legal)
        if status.meter_id != self.meter_id:
            return None
        self._take_status(status)
        self._take_current(legal)
        chosen = request.params.get("transaction_id") or self._current_id
        if status.ongoing and not (legal.known and chosen):
            return None
        if status.ongoing and legal.transaction_id == chosen:
            return Answer(
                execution=Execution.FAILURE,
                code="NO_EFFECT",
                text="The transaction still runs: the stop had no effect.",
                facts=self._facts(),
            )
        text = "The transaction does not run any more: it is stopped."
        result: dict[str, Any] = {"status": "OK", "transaction_id": chosen}
        if chosen:
            try:
                record = await talk.ask(lem.get_ocmf(status.v2, transaction_id=chosen), lem.judge_ocmf)
            except (RemoteProtocolError, ParameterError) as exc:
                text += f" Its record could not be read: {exc}"
            else:
                found, verdict = self._record_json(record, chosen)
                result |= {**found, **_signed_meter_value(found, verdict)}
        return Answer(result=result, text=text, facts=self._facts())

    async def _verify_tls(self, request: Dispatch) -> Answer | None:
        """Does the port speak what was asked for? Without a confirmed certificate nobody can tell."""
        wanted = bool(request.params["on"])
        certificate = self._candidate if wanted else None
        if wanted and certificate is None:
            return None
        other = self._link_with(certificate)
        try:
            await self._talks(other, request.tap)
        except (LinkError, RemoteProtocolError):
            return None
        finally:
            await self._drop(other)
        return self._tls_answer(certificate)

    # ---------------------------------------------------------------- settings

    async def _written(self, talk: Talk, *requests: lem.Request, **facts: Any) -> Answer:
        """Write settings; a refusal of the meter is an answer."""
        try:
            for request in requests:
                await talk.ask(request, lem.judge_written)
        except RemoteProtocolError as exc:
            return _refused(exc)
        notes = self._unsafe_notes()
        text = " ".join(["The meter took the setting.", *notes])
        return Answer(result={"warnings": notes}, text=text, facts=facts)

    def _unsafe_notes(self) -> list[str]:
        if self._clock.monotonic() < self._safe_from:
            return [rules.UNSAFE_NOTE + " Check it later."]
        return []

    async def _sync_time(self, request: Dispatch, talk: Talk) -> Answer:
        try:
            count = await self._synchronise(talk, force=True)
        except RemoteProtocolError as exc:
            return _refused(exc)
        notes = self._unsafe_notes()
        how = "NTP servers" if self._config.ntp_mode else "this computer's clock"
        return Answer(
            result={"requests": count, "source": how, "warnings": notes},
            text=" ".join([f"The meter takes its time from {how}.", *notes]),
        )

    async def _set_time(self, request: Dispatch, talk: Talk) -> Answer:
        moment = request.params.get("time") or self._clock.now()
        answer = await self._written(talk, lem.put_time(moment))
        if answer.execution is Execution.SUCCESS:
            self._clock_doubtful = False
            self._status_due = 0.0
        return answer

    async def _set_ntp(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        first, second = params.get("server_1") or "", params.get("server_2") or ""
        if second and not first:
            raise ParameterError("Enter the first time server before the second.", "server_1")
        servers: list[tuple[str, int]] = []
        if first:
            servers = [(first, params["port_1"]), (second, params["port_2"] if second else 123)]
        return await self._written(talk, lem.put_ntp(servers), ntp_activated=bool(servers))

    async def _set_timezone(self, request: Dispatch, talk: Talk) -> Answer:
        zone = request.params["timezone"]
        try:
            put = lem.put_timezone(zone)
        except ConfigError as exc:
            raise ParameterError(str(exc), "timezone") from exc
        return await self._written(talk, put, meter_timezone=zone)

    async def _set_dst(self, request: Dispatch, talk: Talk) -> Answer:
        params = request.params
        rule = {
            "activated": params["activated"],
            "offset": params["offset"],
            **{
                side: {name: params[f"{side}_{name}"] for name in ("order", "day", "month", "hour")}
                for side in ("start", "end")
            },
        }
        try:
            put = lem.put_dst(rule)
        except ConfigError as exc:
            raise ParameterError(str(exc), "activated") from exc
        return await self._written(talk, put, meter_dst=rule)

    async def _set_identification_type(self, request: Dispatch, talk: Talk) -> Answer:
        wanted = int(request.params["identification_type"])
        before = (await talk.ask(lem.get_settings(), lem.judge_settings)).identification_type
        names = {"before": lem.identification_name(before), "now": lem.identification_name(wanted)}
        if before == wanted:
            return Answer(result={**names, "written": False}, text="It was set already; nothing was written.")
        answer = await self._written(
            talk, lem.put_identification_type(wanted), identification_type=wanted, identification_name=names["now"]
        )
        if answer.execution is Execution.FAILURE:
            return answer
        return Answer(result={**answer.result, **names, "written": True}, text=answer.text, facts=answer.facts)

    # ---------------------------------------------------------------- TLS (section 10, last paragraph)

    async def _set_tls(self, request: Dispatch, talk: Talk) -> Answer:
        wanted = bool(request.params["on"])
        if self._ongoing:
            return _no("TRANSACTION_RUNNING", "A transaction is running; stop it before TLS is switched.")
        if wanted is (self._pin is not None):
            state = "on" if wanted else "off"
            return _no("ALREADY", f"TLS is switched {state} already on this connection; nothing was sent.")
        certificate: lem.Certificate | None = None
        if wanted:
            certificate = await talk.ask(lem.get_certificate(), lem.judge_certificate)
            refusal = self._unconfirmed(certificate, request.params.get("fingerprint") or "")
            if refusal is not None:
                return refusal
            self._candidate = certificate
        try:
            await talk.ask(lem.put_tls(wanted), lem.judge_written)
        except RemoteProtocolError as exc:
            return _refused(exc)
        except LinkError as exc:
            self._check_closed(exc)
            if not exc.may_have_arrived:
                raise
            # The meter may have changed over before its answer got out: the port itself tells.
        return await self._change_over(certificate, request.tap)

    def _unconfirmed(self, certificate: lem.Certificate, given: str) -> Answer | None:
        expected = _hex_only(certificate.sha256)
        if _hex_only(given) == expected:
            return None
        shown = self._certificate_json(certificate)
        if not given.strip():
            return _no(
                "CONFIRM_FINGERPRINT",
                f"Nothing was switched. The meter's certificate has the fingerprint {certificate.sha256}: compare it "
                "with the meter's papers and send the command again with it.",
                shown,
            )
        return _no(
            "FINGERPRINT_DIFFERS",
            f"Nothing was switched. The meter's certificate has the fingerprint {certificate.sha256}, which is not "
            "the one that was given. Is this the right meter?",
            shown,
        )

    async def _change_over(self, certificate: lem.Certificate | None, tap: Tap) -> Answer:
        """Wait until the same port answers in the other way, then go on with that."""
        other = self._link_with(certificate)
        taken = False
        last: Exception | None = None
        deadline = self._clock.monotonic() + self._pace.tls_switch_s
        try:
            while True:
                try:
                    await self._talks(other, tap)
                except (LinkError, RemoteProtocolError) as exc:
                    self._check_closed(exc, may_have_arrived=True)
                    last = exc
                else:
                    break
                if self._clock.monotonic() >= deadline:
                    raise LinkError(
                        f"The meter took the switch, but did not answer in the new way within "
                        f"{self._pace.tls_switch_s:g} s: {last}",
                        LinkReason.TLS,
                    )
                await self._pause_between(self._pace.tls_poll_s, may_have_arrived=True)
            taken = True
        finally:
            if not taken:
                await self._drop(other)
        old, self._link = self._link, other
        self._pin = certificate
        await self._drop(old)
        return self._tls_answer(certificate)

    async def _talks(self, link: HttpExchange, tap: Tap) -> None:
        status = await Talk(link, tap).ask(lem.get_status(), lem.judge_status)
        if status.meter_id != self.meter_id:
            raise _OtherMeter(f"Another meter answers at {self._config.host}.", LinkReason.BROKEN)

    def _tls_answer(self, certificate: lem.Certificate | None) -> Answer:
        if certificate is None:
            return Answer(
                result={"tls": False},
                text="TLS is switched off; the connection is not encrypted.",
                facts={"tls": False, "tls_certificate": None},
                settings={"tls_certificate": ""},
            )
        return Answer(
            result={"tls": True, **self._certificate_json(certificate)},
            text="TLS is switched on; the certificate is pinned in the connection's settings.",
            facts={"tls": True, "tls_certificate": certificate.pem},
            settings={"tls_certificate": certificate.pem},
        )


# ---------------------------------------------------------------- recorded bytes


Exchanges = Sequence[rereading.HttpExchange]


def _said(exchanges: Exchanges, judge: Judge[T], what: str) -> T:
    """The last whole answer to a GET of ``what`` (behind the version in the path).

    Raises:
        Unrecorded: there is none. RemoteProtocolError: response failure.
    """
    for one in reversed(exchanges):
        if one.method == "GET" and _is_of(one, what):
            return judge(lem.Request(one.method, one.target), one.status, one.body)
    raise Unrecorded


def _is_of(exchange: rereading.HttpExchange, what: str) -> bool:
    return what in exchange.path.split("/")


def _taken(exchanges: Exchanges, judge: Judge[T], method: str, expected: int = 200) -> T:
    """The answer to the last request, which changed something; where something was read after it, that was to find out
    whether it worked, and its own answer did not tell.

    Raises:
        Unrecorded: it was another request. RemoteProtocolError: response failure.
    """
    last = exchanges[-1]
    if last.method != method:
        raise Unrecorded
    return judge(lem.Request(last.method, last.target, expected=expected), last.status, last.body)


def _judge_live(request: lem.Request, code: int, body: bytes) -> lem.LiveSample:
    """Of a meter whose serial number is not asked."""
    return lem.judge_live(request, code, body, "")


def _reread_live(exchanges: Exchanges) -> Answer:
    shown = _said(exchanges, _judge_live, "livemeasure").to_json()
    return Answer(result={name: value for name, value in shown.items() if name != "meter_id"})


def _reread_stop(exchanges: Exchanges) -> Answer:
    """The PUT may belong to an earlier command, whose record did not come."""
    result = _record_result(_said(exchanges, lem.judge_ocmf, "ocmf"))
    is_read_back = any(_is_of(one, "status") for one in exchanges)
    before_record = [one for one in exchanges if not _is_of(one, "ocmf")]
    if before_record and not is_read_back:
        result["document"] = _taken(before_record, lem.judge_stop, "PUT").to_json()
    return Answer(result=result)


def _reread_written(exchanges: Exchanges) -> Answer:
    _taken(exchanges, lem.judge_written, "PUT")
    return Answer()


_REREAD: Final[Mapping[str, Callable[[Exchanges], Answer]]] = {
    "READ_STATUS": lambda all_: Answer(result=_said(all_, lem.judge_status, "status").to_json()),
    "READ_LIVE": _reread_live,
    "READ_LEGAL": lambda all_: Answer(result=_said(all_, lem.judge_legal, "legal").to_json()),
    "READ_SETTINGS": lambda all_: Answer(result=_said(all_, lem.judge_settings, "settings").to_json()),
    "READ_CERTIFICATE": lambda all_: Answer(
        result=_certificate_result(_said(all_, lem.judge_certificate, "certificate"))
    ),
    "READ_RECORD": lambda all_: Answer(result=_record_result(_said(all_, lem.judge_ocmf, "ocmf"))),
    "READ_LOGBOOK": lambda all_: Answer(result=_logbook_result(_said(all_, lem.judge_logbook, "logbook"))),
    "START_TRANSACTION": lambda all_: Answer(
        result={"meter_answer": _taken(all_, lem.judge_start, "POST", 201).to_json()}
    ),
    "STOP_TRANSACTION": _reread_stop,
    **dict.fromkeys(
        ("SYNC_TIME", "SET_TIME", "SET_NTP", "SET_TIMEZONE", "SET_DST", "SET_IDENTIFICATION_TYPE"), _reread_written
    ),
}


# ---------------------------------------------------------------- results


def _certificate_result(certificate: lem.Certificate) -> dict[str, Any]:
    shown = certificate.to_json()
    shown.pop("der", None)
    return {**shown, "fingerprint": certificate.sha256, "certificate": certificate.pem}


def _record_result(record: bytes) -> dict[str, Any]:
    """A record as text; where it is not UTF-8 the bytes themselves are kept beside it."""
    text = record.decode(errors="backslashreplace")
    exact = {} if text.encode() == record else {"record_base64": base64.b64encode(record).decode()}
    return {"record": text, **exact}


def _logbook_result(logbook: lem.Logbook) -> dict[str, Any]:
    return {**logbook.to_json(), "count": len(logbook.entries)}


# ---------------------------------------------------------------- small helpers


def _unexpected(
    text: str, result: Mapping[str, Any] | None = None, execution: Execution = Execution.FAILURE
) -> Answer:
    """UNEXPECTED_ERROR of section 8. UNKNOWN where the request may have had its effect (design.md section 4)."""
    return Answer(
        execution=execution,
        code=rules.UNEXPECTED_ERROR,
        text=text,
        result={"status": rules.UNEXPECTED_ERROR, **(result or {})},
    )


def _no(code: str, text: str, result: Mapping[str, Any] | None = None) -> Answer:
    return Answer(execution=Execution.FAILURE, code=code, text=text, result=result or {})


def _refused(exc: RemoteProtocolError) -> Answer:
    return _no("REFUSED", f"The meter did not take the setting: {exc}")


def _took_effect(did: bool, what: str) -> Answer:
    if did:
        return Answer(text=f"{what} is as it was asked for.")
    return _no("NO_EFFECT", f"{what} is not as it was asked for: the command had no effect.")


def _may_have_arrived(exc: Exception) -> bool:
    """A response failure came from the meter, which therefore had the request and said no."""
    return isinstance(exc, LinkError) and exc.may_have_arrived


def _signed_meter_value(result: Mapping[str, Any], verdict: ocmf.Verification) -> dict[str, Any]:
    return {
        "signed_meter_value": {
            "signed_meter_data": result["record"],
            "signing_method": verdict.algorithm,
            "encoding_method": "OCMF",
            "public_key": result["public_key"],
        },
        "start_signed_meter_value": None,  # one record covers begin and end (section 8.2)
    }


def _hex_only(text: str) -> str:
    return "".join(character for character in text.upper() if character in "0123456789ABCDEF")


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
