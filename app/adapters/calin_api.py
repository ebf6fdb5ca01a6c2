"""CALIN meters behind the vendor's HTTP services v1 and v2 (specs/calin-api.md; section numbers below are its own).

A command becomes a task at the vendor, which is asked for until it is done. Two adapter types with separate clients,
logins and scopes; one instance serves all meters and concentrators of one account. A failed look at a task never sends
the command again (D-28), and a token is never made twice for one action (section 6).

Every command here may be sent again when its acceptance was not seen: a read changes nothing, relay and date are set to
the same value, and a meter refuses a token it has had (command-flow 1.5, 4.7).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.adapters import _calin_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._live import beside
from app.errors import LinkError, LinkReason, LocalProtocolError, ParameterError, RemoteProtocolError
from app.model.command import CommandSpec, ParamSpec, ParamType, Resend
from app.model.device import Device, NodeKind
from app.model.interaction import Frame
from app.model.reading import Finding, LinkState, Severity
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
    Found,
    Limits,
    LinkChange,
    Reach,
    Tap,
    Telemetry,
    Uplink,
)
from app.protocols import calin_api as calin
from app.protocols.calin_api import Api, Command
from app.transports.webhook import WebCaller

_log = logging.getLogger(__name__)

POLL_GRID_S: Final = 5.0  # POLL_CYCLE
SLOT_HOLD_S: Final = 600.0  # D-53
STATUS_POLL_S: Final = 60.0  # ours: the concentrators' state, command-flow 3.7
MAX_UPLINKS: Final = 1000
MAX_REFS: Final = 10_000  # ours: task numbers remembered, so that one given twice is noticed
SEPARATOR: Final = ":"  # in a reference, between the family of a task and the vendor's id


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times that nobody sets by hand; tests and simulators shorten them."""

    status_poll_s: float = STATUS_POLL_S


# ---------------------------------------------------------------- the connection forms (section 1.1)


def _text(name: str, title: str, description: str = "", **more: Any) -> ParamSpec:
    return ParamSpec(name=name, title=title, help=description, max_bytes=500, **more)


def _secret(name: str, title: str) -> ParamSpec:
    return ParamSpec(name=name, title=title, type=ParamType.SECRET, max_bytes=500)


_BASE: Final = _text(
    "base_url", "Service", "Address of the vendor's service, http(s)://host[:port][/path].", pattern=r"https?://[^\s?#@]+"
)  # fmt: skip
_CA: Final = ParamSpec(
    name="ca_certificate",
    title="Trusted certificate",
    type=ParamType.PEM,
    required=False,
    default="",
    help="For a service with a certificate of its own; empty: the usual authorities.",
)
_FIRST_POLL: Final = ParamSpec(
    name="first_poll_s",
    title="First look at a task",
    type=ParamType.DECIMAL,
    unit="s",
    required=False,
    default=Decimal(str(calin.FIRST_POLL_S)),
    minimum=1,
    maximum=600,
    help="So long after the vendor took it. Looks happen every five seconds.",
)  # section 5.1
_COMPANY: Final = _text("company_name", "Company")
_ADMIN: Final = (_text("admin_username", "User for tasks"), _secret("admin_password", "Password for tasks"))

FORMS: Final[Mapping[Api, tuple[ParamSpec, ...]]] = {
    Api.V1: (
        _BASE,
        _COMPANY,
        *_ADMIN,
        _text("pos_username", "User for sales"),
        _secret("pos_password", "Password for sales"),
        _text("maintenance_username", "User for maintenance"),
        _secret("maintenance_password", "Password for maintenance"),
        _CA,
        _FIRST_POLL,
    ),
    Api.V2: (
        _BASE,
        _COMPANY,
        _text("customer_id", "Customer"),
        *_ADMIN,
        _secret("pos_password", "Password for sales"),
        _CA,
        _FIRST_POLL,
    ),
}


# ---------------------------------------------------------------- commands

COMMANDS: Final[Mapping[Api, tuple[CommandSpec, ...]]] = {Api.V1: rules.V1, Api.V2: rules.V2}
NOT_FOR_GATEWAYS: Final = "This is a concentrator; only its state is watched."


def _firmware(device: Device, facts: Mapping[str, Any]) -> str:
    """As READ_VERSION gave it, else as it was entered."""
    return str(facts.get("version") or device.attributes.get("firmware") or "")


# ---------------------------------------------------------------- the static side


class _CalinApi:
    """What the two adapter types share."""

    key = ""
    title = ""
    summary = ""
    api = Api.V1

    def __init__(self, *, pace: Pace | None = None) -> None:
        self._pace = pace if pace is not None else Pace()

    def form(self) -> tuple[ParamSpec, ...]:
        return FORMS[self.api]

    def attribute_form(self, kind: NodeKind) -> tuple[ParamSpec, ...]:
        return rules.attribute_form(kind)

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """Section 5 and command-flow 0.3, 4.5, 4.6 and 5.3; no rule about silence (3.3)."""
        return Limits(
            reach=Reach.GATEWAY,
            max_in_flight=calin.MAX_IN_FLIGHT,
            accept_timeout_s=calin.ACCEPT_TIMEOUT_S,
            stage_timeout_s=calin.MAX_AGE_S,
            stage_code="PULL_MAX_AGE",
            stage_is_final=True,
            first_poll_s=float(_FIRST_POLL.parse(settings.get(_FIRST_POLL.name))),
            poll_s=calin.POLL_DELAYS_S,
            poll_late_s=calin.POLL_DELAY_LATE_S,
            poll_grid_s=POLL_GRID_S,
            slot_hold_s=SLOT_HOLD_S,
            token_is_sale=True,
            retry=rules.RETRY,
        )

    def lane(self, device: Device) -> str:
        """The concentrator is the bottleneck (section 5.3)."""
        if device.kind is NodeKind.GATEWAY:
            return device.id
        return str(device.attributes.get("gateway") or device.parent or device.id)

    def connection(self, device: Device) -> str:
        """One account at one service; no secret stands in it."""
        given = device.settings
        names = [spec.name for spec in self.form() if spec.type is ParamType.TEXT]
        return "|".join(str(given.get(name, "")).strip().rstrip("/") for name in names)

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        if device.kind is not NodeKind.METER:
            return ()
        if calin.is_supported(self.api, Command.READ_POWER_LIMIT, firmware=_firmware(device, facts)):
            return COMMANDS[self.api]
        return rules.V1_OLD_FIRMWARE

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        if device.kind is not NodeKind.METER:
            return {command.value: NOT_FOR_GATEWAYS for command in Command}
        return rules.vendor_unsupported(self.api, _firmware(device, facts))

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        if device.kind is not NodeKind.METER:
            return ()
        return tuple(quantity.name for quantity in (rules.CREDIT, rules.VOLTAGE, rules.CURRENT, rules.POWER))

    def create(self, context: AdapterContext) -> Adapter:
        return CalinAdapter(context, self.api, pace=self._pace)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Ask which concentrators are online; nothing is written."""
        adapter = CalinAdapter(context, self.api, pace=self._pace)
        try:
            found = await adapter.concentrators(context.tap)
        finally:
            await adapter.close()
        online = sum(1 for state in found if state.online)
        return [f"The vendor's service answers and knows {len(found)} concentrators, {online} of them online."]

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """The looks at a task that told its end. See ``Rereader``.

        Left out: the phases that v2 does not tell, which the device's attributes decide. An answer with a token in it
        was recorded without it, and is passed over.
        """
        command = calin.command_named(spec.name)
        done: list[Mapping[str, Any]] = []
        for exchange in rereading.http_exchanges(frames):
            asked = calin.Request(calin.Purpose.POLL, exchange.target, b"")
            reply = calin.HttpReply(exchange.status, "", exchange.body)
            # Of an answer with a success status and JSON, both services' clients make the same.
            outcome = calin.judge_poll(self.api, command, asked, calin.judge_v1(asked, reply)).outcome
            if isinstance(outcome, calin.Done) and outcome.executed:
                done.append(outcome.result)
        spec = next((one for one in COMMANDS[self.api] if one.name == spec.name), spec)  # of a meter that moved away
        result = rules.one_result(spec, done)
        if not result:
            rereading.expect_success(frames, "no look at the task says that it was carried out.")
            return None
        return Answer(result=result)


class CalinV1(_CalinApi):
    """AdapterType of the vendor's first service: three accounts, no login."""

    key = "calin-v1"
    title = "CALIN HTTP service v1"
    summary = "Prepaid AC meters behind concentrators and the vendor's first service."
    api = Api.V1


class CalinV2(_CalinApi):
    """AdapterType of the vendor's second service: one login."""

    key = "calin-v2"
    title = "CALIN HTTP service v2"
    summary = "Prepaid AC meters behind concentrators and the vendor's second service."
    api = Api.V2


# ---------------------------------------------------------------- the live side


@dataclass(slots=True)
class _Crossed:
    """Whether any byte of a call itself, logins aside, may have reached the vendor."""

    sent: bool = False


class CalinAdapter:
    """One live connection to one of the services. See ``Adapter`` and ``TokenMaker``."""

    def __init__(self, context: AdapterContext, api: Api, *, pace: Pace) -> None:
        self._context = context
        self._api = api
        self._pace = pace
        self._clock = context.clock
        kind = calin.V1Settings if api is Api.V1 else calin.V2Settings
        names = [item.name for item in fields(kind)]
        self._settings: calin.Settings = kind.from_settings({name: context.settings[name] for name in names})
        self._web = WebCaller(
            self._settings.base_url,
            timeout_s=calin.CALL_TIMEOUT_S,
            ca_pem=context.settings["ca_certificate"],
            max_body=calin.MAX_BODY_BYTES,
            max_parallel=256,  # the lanes hold five of each concentrator
        )
        self._logins = calin.LoginCache()
        self._login_lock = asyncio.Lock()
        self._gateways = {device.serial: device for device in context.devices if device.kind is NodeKind.GATEWAY}
        self._meters = [device for device in context.devices if device.kind is NodeKind.METER]
        self._uplinks: asyncio.Queue[Uplink] = asyncio.Queue(MAX_UPLINKS + 2 * len(context.devices))
        self._links: dict[str, LinkState] = {}
        self._told = ""
        self._owners: OrderedDict[str, tuple[int, str]] = OrderedDict()  # reference -> interaction and phase

    # ---------------------------------------------------------------- opening

    def open(self) -> AbstractAsyncContextManager[None]:
        """Watch the concentrators. Leaving ends every call at once."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        async with beside() as group:
            watch = group.create_task(self._watch(), name="concentrators")
            try:
                yield
            finally:
                watch.cancel()
                await self.close()

    async def close(self) -> None:
        await self._web.close()

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """The state of the service and of the concentrators; meters never speak unasked here."""
        while True:
            yield await self._uplinks.get()

    def _tell(self, uplink: Uplink) -> None:
        if not self._uplinks.full():
            self._uplinks.put_nowait(uplink)

    # ---------------------------------------------------------------- commands

    async def submit(self, request: Dispatch) -> Accepted:
        """Hand one command to the vendor; the reference names the task.

        Raises:
            DeliveryFailure: not scheduled, refused, or the service was not reached. ParameterError, LocalProtocolError:
                it cannot be sent.
        """
        command = calin.command_named(request.spec.name)
        device = request.device
        if device.kind is not NodeKind.METER:
            raise LocalProtocolError(NOT_FOR_GATEWAYS)
        family = calin.FAMILIES.get(command)
        sent = calin.create_task(
            self._settings,
            command,
            device.serial,
            phase=request.phase,
            token=rules.token_of(request) if family is calin.Family.TOKEN else None,
            payload=dict(request.params) if family is calin.Family.WRITE else None,
            firmware=str(device.attributes.get("firmware") or ""),
        )
        answer = await self._ask(sent, request.tap)
        try:
            outcome = calin.judge_created(self._api, command, sent, answer)
            if isinstance(outcome, calin.Task):
                calin.poll_task(self._settings, command, outcome.task_id)  # can it be asked for at all?
        except (RemoteProtocolError, LocalProtocolError) as exc:
            raise _lost(request, f"The vendor took the command under an unusable task number: {exc}") from exc
        if isinstance(outcome, calin.Failed):
            raise _delivery_failure(outcome, request)
        assert family is not None
        ref = f"{family.value}{SEPARATOR}{outcome.task_id}"
        owner = (request.interaction.id, request.phase)
        if self._owners.setdefault(ref, owner) != owner:
            raise _lost(request, "The vendor took the command under the task number of another one.")
        while len(self._owners) > MAX_REFS:
            self._owners.popitem(last=False)
        return Accepted(ref)

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        """Look at a task. None: pending, or the look itself failed, which says nothing about the command (D-28).

        Raises:
            DeliveryFailure: the vendor refused the token or task for good.
        """
        command = calin.command_named(request.spec.name)
        task = ref.partition(SEPARATOR)[2] or ref
        try:
            sent = calin.poll_task(self._settings, command, task)
        except LocalProtocolError as exc:
            raise DeliveryFailure("BAD_TASK_NUMBER", str(exc), Disposition.FINAL) from exc
        answer = await self._ask(sent, request.tap)
        if isinstance(answer, calin.Body) and _is_of_another(answer.value, task, request.device.serial):
            _log.warning(
                "task %s: the vendor's answer is that of another", ref, extra={"interaction": request.interaction.id}
            )
            return None
        found = calin.judge_poll(
            self._api,
            command,
            sent,
            answer,
            phase=request.phase,
            three_phase=rules.is_three_phase(request.device),
        )
        match found.outcome:
            case calin.Pending(fault):
                if fault is not None:
                    _log.info("task %s: %s", ref, fault.sentence, extra={"interaction": request.interaction.id})
                return None
            case calin.Failed() as failed:
                if not failed.permanent:
                    return None
                if rules.may_be_used(request):
                    return _used(failed.failure, failed.sentence)
                raise DeliveryFailure(failed.failure.value.upper(), failed.sentence, Disposition.FINAL)
            case done:
                return self._answer(request, command, done)

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        """Never asked: a task is given up by its age."""
        return False

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        """No command is answered by its effect."""
        return None

    async def verify(self, request: Dispatch) -> Answer | None:
        """Cannot tell: a read back takes the way of a command of its own (``follow_up_on_failure``)."""
        return None

    def _answer(self, request: Dispatch, command: Command, done: calin.Done) -> Answer:
        if not done.executed:
            failure = done.failure or calin.FailureClass.NOT_EXECUTED
            if failure is calin.FailureClass.TOKEN_REJECTED and rules.may_be_used(request):
                return _used(failure, done.sentence)
            result = {"raw": dict(done.raw)} if done.raw else {}
            return Answer(
                execution=Execution.FAILURE, code=failure.value.upper(), text=done.sentence, result=result
            )  # fmt: skip
        samples = rules.samples_of(done.result, request.device, self._clock.now(), request.interaction.id)
        return Answer(result=done.result, samples=samples)

    # ---------------------------------------------------------------- tokens (section 6)

    async def make_token(self, request: Dispatch, issued: datetime) -> str:
        """A token of the vendor's. It may be a sale: what may have been made already is never made again.

        The vendor does not use ``issued``. Of v2, one serial number stands for one interaction in every try.
        Raises:
            DeliveryFailure: RETRY where nothing was made, UNKNOWN where something may have been.
        """
        command = calin.command_named(request.spec.name)
        try:
            sent = calin.issue_token(
                self._settings,
                command,
                request.device.serial,
                kwh=request.params.get("transactive_kwh"),
                power_limit=request.params.get("target_power_limit"),
                serial_number=_sale_number(request),
            )
        except (ParameterError, LocalProtocolError) as exc:
            raise DeliveryFailure("TOKEN_FAILED", str(exc), Disposition.FINAL) from exc
        crossed = _Crossed()
        made = calin.judge_issued(self._api, command, sent, await self._ask(sent, request.tap, crossed))
        if isinstance(made, calin.Failed):
            disposition = Disposition.FINAL if made.permanent else Disposition.RETRY
            text = made.sentence
            if made.may_have_arrived and crossed.sent:
                disposition = Disposition.UNKNOWN
                text += " Whether a token was made is not known; look at the vendor's list before trying again."
            raise DeliveryFailure("TOKEN_FAILED", text, disposition, made.failure.value)
        try:
            return calin.check_token(made.token.replace("-", ""))
        except ParameterError as exc:
            text = "The vendor made a token that does not have 20 digits; look at the vendor's list."
            raise DeliveryFailure("TOKEN_FAILED", text, Disposition.UNKNOWN) from exc

    # ---------------------------------------------------------------- the client (section 2)

    async def _ask(
        self, request: calin.Request, tap: Tap | None, crossed: _Crossed | None = None
    ) -> calin.Body | calin.Failed:
        """One call with what belongs to it: the classes of v1, or the login and tries of v2."""
        if isinstance(self._settings, calin.V1Settings):
            return calin.judge_v1(request, await self._send(request, tap, crossed))
        exchange = calin.Exchange(self._settings, request, self._logins)
        while (sent := exchange.next(self._clock.now())) is not None:
            if sent.purpose is calin.Purpose.LOGIN:
                async with self._login_lock:  # calls that came meanwhile share the login of the first
                    sent = exchange.next(self._clock.now())
                    if sent is not None and sent.purpose is calin.Purpose.LOGIN:
                        exchange.feed(await self._send(sent, tap), self._clock.now())
                continue
            exchange.feed(await self._send(sent, tap, crossed), self._clock.now())
        return exchange.result

    async def _send(self, request: calin.Request, tap: Tap | None, crossed: _Crossed | None = None) -> calin.Reply:
        """One HTTP exchange; failures of the wire are values here.

        Raises:
            LinkError: this connection was closed here.
        """

        def hide(text: str) -> str:
            shown = request.hide(text)
            return LOGIN_ANSWER if request.purpose is calin.Purpose.LOGIN and '"token"' in shown else shown

        try:
            reply = await self._web.call(
                request.method,
                request.path,
                request.body,
                headers=request.headers,
                timeout_s=request.timeout_s,
                tap=tap,
                hide=hide,
            )
        except LinkError as exc:
            if crossed is not None:
                crossed.sent |= exc.may_have_arrived
            if self._web.is_closed:
                raise
            return calin.NoReply(_ERRNO.get(exc.reason, ""))
        except RemoteProtocolError:
            if crossed is not None:
                crossed.sent = True
            return calin.NoReply("EMSGSIZE")
        if crossed is not None:
            crossed.sent = True
        return rules.as_reply(reply)

    # ---------------------------------------------------------------- concentrators (section 7)

    async def concentrators(self, tap: Tap | None = None) -> tuple[calin.ConcentratorState, ...]:
        """Which concentrators are online.

        Raises:
            LinkError: the service was not reached, or refused. RemoteProtocolError: an answer without a list.
        """
        if isinstance(self._settings, calin.V1Settings):
            request = calin.v1_online_status(self._settings)
        else:
            request = calin.v2_online_status(self._settings)
        answer = await self._ask(request, tap)
        if isinstance(answer, calin.Failed):
            refused = answer.failure is calin.FailureClass.CONNECTION_REFUSED
            raise LinkError(answer.sentence, LinkReason.REFUSED if refused else LinkReason.BROKEN)
        return calin.judge_online(self._api, request, answer)

    async def _watch(self) -> None:
        while True:
            try:
                found = await self.concentrators()
            except (LinkError, RemoteProtocolError) as exc:
                self._service(str(exc))
            else:
                self._service("")
                self._seen({state.concentrator: state.online for state in found})
            await asyncio.sleep(self._pace.status_poll_s)

    def _service(self, trouble: str) -> None:
        """The service itself; its state is that of the meters' links."""
        link = LinkState.FAULT if trouble else LinkState.ONLINE
        for device in self._meters:
            if self._links.get(device.id) is not link:
                self._links[device.id] = link
                self._tell(LinkChange(device.id, link, trouble))
        if bool(trouble) == bool(self._told) or not self._context.devices:
            return
        self._told = trouble
        self._tell(
            Found(
                Finding(
                    at=self._clock.now(),
                    device=self._context.devices[0].id,
                    severity=Severity.WARNING if trouble else Severity.INFO,
                    code="VENDOR_SERVICE",
                    text=trouble or "The vendor's service answers again.",
                    cleared=not trouble,
                )
            )
        )

    def _seen(self, found: Mapping[str, bool]) -> None:
        for serial, device in self._gateways.items():
            online = found.get(serial)
            if online is None:
                continue  # not in the list (v2 gives a hundred): unknown, which does not block (D-06)
            link = LinkState.ONLINE if online else LinkState.FAULT
            if self._links.get(device.id) is not link:
                self._links[device.id] = link
                self._tell(LinkChange(device.id, link, "" if online else "The vendor says that it is offline."))
            facts = {"is_online": online, "is_online_updated_at": self._clock.now()}
            self._tell(Facts(device.id, facts, is_contact=online))


# ---------------------------------------------------------------- small helpers

LOGIN_ANSWER: Final = '{"result":{"token":"[redacted]"}}'
_ERRNO: Final[Mapping[LinkReason, str]] = {LinkReason.REFUSED: "ECONNREFUSED", LinkReason.CLOSED: "ECONNRESET"}


def _is_of_another(value: Any, task: str, serial: str) -> bool:
    """Whether an answer names another task or meter than the one asked for; one that names none is believed."""
    match value:
        case {"Result": {"TaskNo": str(told)}}:
            return told not in ("", task)
        case {"result": {"data": [{**row}, *_]}}:
            return str(row.get("id") or task) != task or str(row.get("meterId") or serial) != serial
        case _:
            return False


def _lost(request: Dispatch, text: str) -> DeliveryFailure:
    """The vendor has the command and its answer cannot be asked for: not sent again where it may have an effect."""
    disposition = Disposition.UNKNOWN if request.spec.has_effect else Disposition.FINAL
    return DeliveryFailure("BAD_TASK_NUMBER", text, disposition)


def _sale_number(request: Dispatch) -> str:
    """A UUID v4 that is the same in every try of one interaction, also after a restart (section 6)."""
    interaction = request.interaction
    words = f"{interaction.id}|{interaction.created.isoformat()}|{request.device.serial}|{interaction.command}"
    return str(uuid.UUID(bytes=hashlib.sha256(words.encode()).digest()[:16], version=4))


def _used(failure: calin.FailureClass, sentence: str) -> Answer:
    return Answer(execution=Execution.UNKNOWN, code=failure.value.upper(), text=f"{sentence} {rules.USED}")


def _delivery_failure(failed: calin.Failed, request: Dispatch) -> DeliveryFailure:
    """Command-flow 4.7."""
    spec = request.spec
    if failed.failure is calin.FailureClass.TOKEN_REJECTED_AT_SUBMIT and rules.may_be_used(request):
        text = f"{failed.sentence} {rules.USED}"
        return DeliveryFailure(failed.failure.value.upper(), text, Disposition.UNKNOWN)
    disposition = Disposition.FINAL if failed.permanent else Disposition.RETRY
    if failed.may_have_arrived and not failed.permanent and spec.has_effect and spec.resend is Resend.NEVER:
        disposition = Disposition.UNKNOWN
    return DeliveryFailure(failed.failure.value.upper(), failed.sentence, disposition)
