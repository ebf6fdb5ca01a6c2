"""Meters behind a head-end (specs/headend-device-messaging.md; section numbers below are its own).

The service keeps queue, retries and transport; this adapter hands commands over, takes signed events as webhooks, and
looks at commands that stay silent. Both ways may run and agree. A command has one correlation id that is made before it
leaves, so that an enqueue whose answer is lost is asked for and never repeated; what may have had an effect is never
sent a second time.

A command that the service does not know (404; sections 4.2 and 13.5) has ended, or its message was lost, or it never
came there. It is waited for as long as its event may still be under way: until every try of the webhook is over,
counted from the first 404 or from the service's return, and longer where its events are late. To wait for the longest
delivery would add nothing, since what the service does not hold it does not deliver, and would keep the meter busy for
hours (command-flow D-25). Then a read is asked anew, under another id, once its earlier ids were asked for; anything
else ends as unknown, is read back and never sent again. An event that comes all the same is a late answer of its row,
also after a restart of this program.

The service may end a message twice, by events of their own: when it dies between an event and the end of its message
(the action is then repeated), or when its device reports an end several times at once. The first end counts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from app.adapters import _calin_rules as calin_rules
from app.adapters import _device_messaging_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._live import beside
from app.errors import (
    ConfigError,
    LinkError,
    LinkReason,
    LocalProtocolError,
    ParameterError,
    RemoteProtocolError,
    StoreError,
)
from app.model.command import CommandKind, CommandSpec, ParamSpec
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame
from app.model.reading import Finding, LinkState, Severity
from app.ports import (
    RESTART,
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
    Kept,
    LateOrPushed,
    Limits,
    LinkChange,
    Progress,
    Refused,
    Report,
    Tap,
    Telemetry,
    Transmitted,
    Uplink,
)
from app.protocols import calin_api as calin
from app.protocols import device_messaging as dm
from app.protocols import device_messaging_metrics as counted
from app.transports.webhook import WebCaller, WebhookEvent, WebhookListener

_log = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")
HEALTH_S: Final = 10.0  # ours: how often the service is asked whether it lives
METRICS_S: Final = 60.0  # ours: how often the service's counts are looked at
PHASE_S: Final = 1800.0  # ours: a read of one phase that is silent for so long is called back and asked anew
REPLAY_S: Final = 24 * 3600.0  # ours: an older event is not believed any more; ids are remembered twice as long
MAX_SEEN: Final = 50_000  # ours: events remembered
MAX_REFS: Final = 10_000  # ours: commands whose tap and stage are remembered
MAX_UPLINKS: Final = 10_000  # ours: what waits for the pipeline
MAX_LOOKS: Final = 8  # ours: at commands, at a time; enqueues go before them
MIN_SECRET: Final = 4  # ours: a shorter one would be found everywhere
MAX_STRANGERS: Final = 256  # ours: unknown meters that are told once
MAX_MUTE: Final = 2  # ours: questions that the store left open before it is suspected; of the counts one will do
SLOW: Final = 2.0  # ours: times as long as usual a message may keep a status before that is said
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times that nobody sets by hand; tests and simulators shorten them."""

    health_s: float = HEALTH_S
    metrics_s: float = METRICS_S
    gone_s: float | None = None  # None: as the service's configuration says
    phase_s: float = PHASE_S
    call_s: float = rules.CALL_S
    replay_s: float = REPLAY_S


# ---------------------------------------------------------------- the static side


class DeviceMessaging:
    """AdapterType of meters behind a device-messaging service."""

    key = "device-messaging"
    title = "Head-end: device messaging"
    summary = "Meters behind the device-messaging service: it keeps queue and retries, answers come as signed webhooks."

    def __init__(self, *, pace: Pace | None = None) -> None:
        self._pace = pace if pace is not None else Pace()

    def form(self) -> tuple[ParamSpec, ...]:
        return rules.FORM

    def attribute_form(self, kind: NodeKind) -> tuple[ParamSpec, ...]:
        return rules.ATTRIBUTES if kind is NodeKind.METER else ()

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return rules.limits(settings)

    def lane(self, device: Device) -> str:
        """The head-end; it orders what it gets by itself."""
        return device.id if device.kind is NodeKind.GATEWAY else device.parent or device.id

    def connection(self, device: Device) -> str:
        """One service and one listener; no secret stands in it."""
        given = device.settings
        names = ("url", "webhook_host", "webhook_port", "correlation_prefix")
        return "|".join(str(given.get(name, "")).strip().rstrip("/") for name in names)

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return rules.commands(device, facts)

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return rules.unsupported(device, facts)

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        if device.kind is not NodeKind.METER:
            return ()
        shown = (calin_rules.CREDIT, calin_rules.CONSUMPTION, calin_rules.VOLTAGE, calin_rules.CURRENT)
        return tuple(quantity.name for quantity in shown)

    def create(self, context: AdapterContext) -> Adapter:
        return HeadEndAdapter(context, pace=self._pace)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Ask whether the service lives and takes the key, what it is and which plugins it has; nothing is enqueued
        and nothing is listened for."""
        adapter = HeadEndAdapter(context, pace=self._pace)
        try:
            await adapter.check_health(context.tap)
            await adapter.check_key(context.tap)
            name = await adapter.about()
            plugins = await adapter.plugins()
        except RemoteProtocolError as exc:
            raise LocalProtocolError(f"The head-end was reached and said no: {exc}") from exc
        finally:
            await adapter.close()
        return [f"The head-end{f' ({name})' if name else ''} answers and takes the key.", *adapter.ways(), *plugins]

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """The events and looks that tell a success, and the service's counts. See ``Rereader``.

        A look does not name the plugin, which decides the unit of a power: fields that depend on it are left out. None
        where no end stands with the command: an event that came after a restart of the program is shown with the link.
        """
        if spec.name == rules.READ_METRICS.name:
            pages = [one for one in rereading.http_exchanges(frames) if one.status == HTTP_OK]
            return Answer(result=counted.read_metrics(pages[-1].body).table()) if pages else None
        shown = [one for one in frames if one.direction is Direction.IN and one.note == EVENT]
        events = filter(rereading.is_whole, shown)
        told: list[tuple[dm.Message, tuple[str, ...]]]
        told = [(found.message, (found.plugin,)) for found in (dm.read_event(dm.read_json(one.data)) for one in events)]
        told += [(message, LOOKED_AT) for message in map(_looked_at, rereading.http_exchanges(frames)) if message]
        results: list[Mapping[str, Any]] = []
        why = ""
        for message, plugins in told:
            if message.command == spec.name and message.status == dm.Status.DELIVERY_SUCCESSFUL:
                read = [dm.read_result(message.command, message.response, plugin=plugin) for plugin in plugins]
                if read[0].fault:
                    why = read[0].fault
                else:
                    results.append(rereading.agreed([_fields(message, one) for one in read]))
        spec = next((one for one in rules.EVERY if one.name == spec.name), spec)  # of a meter that moved away
        result = calin_rules.one_result(spec, results)
        if result:
            return Answer(result=result)
        rereading.expect_success(shown, why or "no event of the head-end says that it was carried out.")
        return None


LOST: Final = "The head-end has finished this command, and no answer came."
UNSEEN: Final = "The head-end does not know this command: it never came there or is finished, and no answer came."
EVENT: Final = "event of the head-end"  # note of the frame that an event is shown as
HTTP_OK: Final = 200
LOOKED_AT: Final = ("", "calin-chirpstack")  # plugins that make different results of the same message
HAS_WEBHOOK: Final = "Answers of meters will come as webhooks; the head-end must know this computer's address."
NO_WEBHOOK: Final = "No webhook is set: only whether a command has ended can be seen, not what the meter answered."
NOT_POSTED: Final = "The service's configuration names no eventWebhook, so answers of meters will not come."
NOT_DELIVERED: Final = "The service's configuration switches its engine off: commands stay in its queue."
NO_STORE: Final = (
    "The head-end is alive, but its store does not answer: it takes no command and shows none. Look at its Redis."
)
ALIVE: Final[Mapping[str, str]] = {
    "HEAD_END": "The head-end answers again.",
    "HEAD_END_STORE": "The head-end no longer fails for want of its store.",
}  # findings of the service itself -> what is said at their end
ELSEWHERE: Final = (
    "The head-end does not hold it any more. It was waiting there when it was last seen, so somebody else has most "
    "likely cancelled it."
)
NOT_THERE: Final = (
    "The head-end does not hold it any more: it has ended there, or somebody else has cancelled it. Its answer is "
    "still waited for."
)
REFUSALS: Final[Mapping[str, str]] = {
    "not_signed": "without the right signature",
    "bad_json": "that are no JSON",
    "too_large": "of more than 1 MiB",
    "too_fast": "too many in one second",
    "not_taken": "while too many waited here",
    "slow": "that came too slowly",
    "not_post": "by another method than POST",
    "bad_http": "that are no HTTP",
    "no_event": "that are no events of the head-end",
    "too_old": "from long ago",
}  # why an event counts for nothing, by the counts of the listener and of this adapter
GROWN: Final = (
    ("webhooks", ("dlq",), "HEAD_END_DEAD_LETTERS",
     "The head-end has given up posting events ({listed}); answers among them are lost here."),
    ("unhandled", None, "HEAD_END_UNHANDLED", "The head-end ignored events of meters it could not match ({listed})."),
    ("claim_misses", None, "HEAD_END_CLAIM_MISSES",
     "The head-end dropped events of meters that did not fit their command's stage ({listed})."),
)  # fmt: skip
"""Counts whose growth is told (section 11): the field of ``Metrics``, which of its labels, code, words."""


@dataclass(slots=True)
class _Sent:
    """What stands behind a reference. ``id``: of its message, as an answer of the service told it."""

    tap: Tap
    serial: str
    command: str
    id: str = ""

    def fits(self, message: dm.Message) -> bool:
        """Another workspace may use the same references, where a person gave both the same prefix."""
        return message.serial == self.serial and message.command in ("", self.command)

    def is_told_by(self, message: dm.Message) -> bool:
        """Of the message of an event, whose device is the one that the network server named."""
        return message.id == self.id if self.id and message.id else self.fits(message)


@dataclass(slots=True)
class _Stage:
    """What was last seen of a message."""

    status: str
    retries: int
    since: float
    told: set[str] = field(default_factory=set)

    @property
    def waits(self) -> bool:
        return self.status in (dm.Status.QUEUED, dm.Status.TO_RETRY)


# ---------------------------------------------------------------- the live side


class HeadEndAdapter:
    """One live connection. See ``Adapter``, ``TokenMaker`` and ``Canceller``."""

    def __init__(self, context: AdapterContext, *, pace: Pace) -> None:
        settings = context.settings
        self._context = context
        self._settings = settings
        self._clock = context.clock
        self._pace = pace
        self._config = rules.config_of(settings)
        self._prefix = rules.prefix_of(settings, context.workspace)
        self._has_webhook = rules.hears(settings)
        self._gone_s = pace.gone_s if pace.gone_s is not None else self._config.gone_s
        key = settings["api_key"]
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._secrets: set[bytes] = set()  # none of them is believed to stand in an answer, nor shown if it does
        for words in (key, settings["webhook_secret"]):
            self._learn_secret(words)
        self._web = WebCaller(
            settings["url"], timeout_s=pace.call_s, ca_pem=settings["ca_certificate"], max_parallel=32, key="url"
        )  # fmt: skip
        self._meters = {device.serial: device for device in context.devices if device.kind is NodeKind.METER}
        self._head_end = next((device for device in context.devices if device.kind is NodeKind.GATEWAY), None)
        self._uplinks: asyncio.Queue[Uplink] = asyncio.Queue()
        self._seen = self._seen_before()
        self._sent: OrderedDict[str, _Sent] = OrderedDict()
        self._present: OrderedDict[rules.Run, str] = OrderedDict()  # the reference that a run is awaited under
        self._ends: OrderedDict[tuple[str, str], None] = OrderedDict()  # messages that have ended, and how
        self._stages: OrderedDict[str, _Stage] = OrderedDict()
        self._gone: OrderedDict[str, float] = OrderedDict()  # since when the service does not know a command
        self._up_since = self._clock.monotonic()
        self._held: dict[str, list[Uplink]] = {}  # events that came while their command was being handed over
        self._least_age_s = math.inf
        self._lag_s = 0.0  # how far the service is behind with its events, which it posts one by one
        self._looks = asyncio.Semaphore(MAX_LOOKS)
        self._strangers: set[str] = set()
        self._mute = 0  # questions in a row that the service's store had to answer and did not
        self._link = LinkState.CONNECTING
        self._raised: set[str] = set()
        self._ignored: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()  # as of the last look
        self._counted: counted.Metrics | None = None  # as of the last look
        self._metrics_at = -math.inf
        self._listener: WebhookListener | None = None

    def _seen_before(self) -> OrderedDict[str, float]:
        """Events, and when they came, by the monotonic clock: also those that came before this program started."""
        now, unix = self._clock.monotonic(), self._clock.now().timestamp()
        newest = sorted(self._context.seen().items(), key=lambda entry: entry[1])[-MAX_SEEN:]
        return OrderedDict((event, now - max(0.0, unix - at)) for event, at in newest)

    def _learn_secret(self, words: str) -> None:
        if len(words) >= MIN_SECRET:
            self._secrets |= {words.encode(), json.dumps(words)[1:-1].encode()}

    def _hide(self, text: str) -> str:
        return dm.hide(self._clean(text.encode()).decode())

    def _clean(self, body: bytes) -> bytes:
        """What the other side said, without the secrets of this connection."""
        for words in self._secrets:
            body = body.replace(words, calin.HIDDEN.encode())
        return body

    # ---------------------------------------------------------------- opening

    def open(self) -> AbstractAsyncContextManager[None]:
        """Listen for events and watch the service. Leaving ends every call at once.

        Raises:
            LinkError: the port cannot be listened on. ConfigError: a setting is missing.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        try:
            async with AsyncExitStack() as stack:
                if self._settings["webhook_port"]:
                    self._listener = self._make_listener()
                    await stack.enter_async_context(self._listener.open())
                async with beside() as group:
                    watch = group.create_task(self._watch(), name="head-end")
                    try:
                        yield
                    finally:
                        watch.cancel()
                        await self.close()
        finally:
            await self.close()

    def _make_listener(self) -> WebhookListener:
        settings = self._settings
        host, secret = settings["webhook_host"] or LOOPBACK[0], settings["webhook_secret"]
        if not secret and host not in LOOPBACK:
            raise ConfigError(
                "is empty, and the listener is open to other computers", key="webhook_secret",
                expected="the secret that the head-end signs with",
            )  # fmt: skip
        return WebhookListener(
            host,
            settings["webhook_port"],
            "",
            on_event=self._webhook,
            signed=lambda headers, body: not secret or dm.is_signed(secret, headers, body),
        )

    async def close(self) -> None:
        await self._web.close()

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """What the service says, by webhook or when looked at; the link of every device is that to the service."""
        while True:
            yield await self._uplinks.get()

    def _tell(self, *uplinks: Uplink) -> None:
        for uplink in uplinks:
            self._uplinks.put_nowait(uplink)

    # ---------------------------------------------------------------- calls

    async def _ask(self, call: dm.Call, tap: Tap | None, *, timeout_s: float | None = None) -> Any:
        """One call and the JSON of its success.

        Raises:
            LinkError: not reached. dm.ServiceError: any other answer.
        """
        needs_store = call.path.startswith("/message")
        try:
            reply = await self._web.call(
                call.method, call.path, call.body, headers=self._headers, timeout_s=timeout_s, tap=tap, hide=self._hide
            )  # fmt: skip
            value = dm.read_answer(reply.status, self._clean(reply.body))
        except LinkError as exc:
            self._mute += needs_store and exc.reason is LinkReason.SILENT
            raise
        except dm.ServiceError as exc:
            if exc.fault is dm.Fault.UNAUTHORIZED:
                self._finding("HEAD_END_KEY", str(exc))
            if needs_store:
                self._mute = self._mute + 1 if exc.fault is dm.Fault.SERVER else 0
            raise
        if needs_store:
            self._mute = 0
        return value

    async def _fetch(self, ref: str, tap: Tap | None) -> dm.Message | None:
        """The message of a correlation id as it is now; None: the service has none, or has finished it (4.2);
        ``dm.UNSHOWN``: it lives, and no more is shown."""
        try:
            return dm.read_message(await self._ask(dm.fetch_call(ref), tap))
        except dm.ServiceError as exc:
            if exc.fault is dm.Fault.NOT_FOUND:
                return None
            if exc.fault is dm.Fault.UNSHOWN:
                return dm.UNSHOWN
            raise

    async def check_health(self, tap: Tap | None = None) -> None:
        """Raises LinkError, RemoteProtocolError."""
        await self._ask(dm.health_call(), tap)

    async def check_key(self, tap: Tap | None = None) -> None:
        """Raises LinkError, RemoteProtocolError: refused."""
        await self._fetch(f"{self._prefix}test", tap)
        self._finding("HEAD_END_KEY", "The head-end takes the key.", cleared=True)

    async def about(self) -> str:
        """Name and version of the service; "" where it does not say."""
        try:
            return dm.read_about(await self._ask(dm.docs_call(), None))
        except (LinkError, RemoteProtocolError):
            return ""

    def ways(self) -> list[str]:
        """How answers come, in sentences."""
        found = HAS_WEBHOOK if self._settings["webhook_port"] else NO_WEBHOOK
        if self._settings["webhook_port"] and not self._has_webhook:
            found = NOT_POSTED
        return [found] if self._config.delivers else [found, NOT_DELIVERED]

    async def plugins(self) -> list[str]:
        """Which plugins the service has, in sentences: by its configuration, else as far as its counts show."""
        used = {rules.plugin_of(device) for device in self._meters.values()} | {self._settings["token_plugin"].strip()}
        listed = self._config.plugins
        if listed is not None:
            missing = sorted(name for name in used if name and name not in listed)
            told = f"Its configuration enables {', '.join(sorted(listed)) or 'no plugin'}."
            return [told, *(f"The plugin {name} is used here and is not enabled there." for name in missing)]
        try:
            shown = (await self.metrics(None)).plugins
        except (LinkError, RemoteProtocolError):
            shown = ()
        told = f"Plugins seen at work there: {', '.join(shown)}. " if shown else ""
        return [f"{told}Enter the service's configuration here to have the plugins of the meters checked."]

    async def metrics(self, tap: Tap | None) -> counted.Metrics:
        """Raises LinkError: not reached. RemoteProtocolError: closed or unreadable."""
        call = dm.metrics_call()
        try:
            reply = await self._web.call(call.method, call.path, headers=self._headers, tap=tap, hide=self._hide)
        except LinkError as exc:
            self._mute = MAX_MUTE if exc.reason is LinkReason.SILENT else self._mute
            raise
        if reply.status != 200:
            self._mute = MAX_MUTE if reply.status >= 500 else self._mute
            raise RemoteProtocolError(f"The head-end does not show its counts (/metrics: HTTP {reply.status}).")
        return counted.read_metrics(self._clean(reply.body))

    # ---------------------------------------------------------------- commands

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        """Enqueue one command under its correlation id, which is the reference.

        After a lost answer the service is asked for the id; what it does not know then may have been finished already,
        so it is waited for and not sent again. A read that was sent before is asked for under its earlier ids, and goes
        on under the one that the service still holds.

        Raises:
            DeliveryFailure: refused. LinkError: the service was not reached, nothing left. ParameterError,
                LocalProtocolError: it cannot be sent.
        """
        device = request.device
        if request.spec.name == rules.READ_METRICS.name:
            return await self._read_metrics(request)
        if device.kind is not NodeKind.METER:
            raise LocalProtocolError(rules.NOT_FOR_HEAD_ENDS)
        run = rules.run_for(request)
        ref = rules.correlation_id(self._prefix, run)
        token = self._token_of(request) if request.spec.kind is CommandKind.TOKEN else ""
        call = dm.enqueue_call(
            request.spec.name,
            device.serial,
            plugin=rules.plugin_of(device),
            correlation_id=ref,
            priority=request.interaction.priority,
            network_id=rules.number_of(device, "network_id"),
            relay_node=rules.number_of(device, "relay_node"),
            phase=request.phase,
            token=token,
            payload=request.params,
        )
        self._await_under(ref, request)
        self._stages.pop(ref, None)
        self._gone.pop(ref, None)
        self._held[ref] = []
        try:
            return await self._enqueue(request, run, ref, call)
        finally:
            self._tell(*self._held.pop(ref, ()))

    def _await_under(self, ref: str, request: Dispatch) -> None:
        """Remember whose reference it is."""
        before = self._sent.get(ref)
        sent = _Sent(request.tap, request.device.serial, request.spec.name, before.id if before is not None else "")
        self._remember(self._sent, ref, sent)
        self._remember(self._present, replace(rules.run_for(request), attempt=1), ref)

    async def _enqueue(self, request: Dispatch, run: rules.Run, ref: str, call: dm.Call) -> Accepted:
        failure = request.interaction.failure
        if request.spec.has_effect and failure is not None and failure.code == RESTART:
            if await self._is_known(request, ref):
                return self._adopted(ref)
            return self._uncertain(ref, "Whether the head-end had taken it is not known.")
        if earlier := await self._known_of(request, run):
            self._await_under(earlier, request)
            return self._adopted(earlier)
        try:
            message = dm.read_message(await self._ask(call, request.tap))
        except LinkError as exc:
            if not exc.may_have_arrived:
                raise
            why = str(exc)
        except dm.ServiceError as exc:
            if not exc.may_be_done:
                code = "HEAD_END_KEY" if exc.fault is dm.Fault.UNAUTHORIZED else "HEAD_END_REFUSED"
                raise DeliveryFailure(code, str(exc), Disposition.FINAL) from exc
            why = str(exc)
        except RemoteProtocolError as exc:  # an answer without end
            why = str(exc)
        else:
            self._staged(ref, message)
            return Accepted(ref)
        if not request.phase and await self._is_known(request, ref):
            return self._adopted(ref)
        return self._uncertain(ref, why)

    async def _known_of(self, request: Dispatch, run: rules.Run) -> str:
        """The earlier reference of a read that the service still holds; "": none, or it does not say."""
        try:
            async with asyncio.timeout(self._pace.call_s):
                for earlier in run.earlier:
                    ref = rules.correlation_id(self._prefix, earlier)
                    if await self._lives(request, ref):
                        return ref
        except (TimeoutError, LinkError, RemoteProtocolError) as exc:
            _log.info("asking for %s failed: %s", run, exc, extra={"interaction": request.interaction.id})
        return ""

    async def _is_known(self, request: Dispatch, ref: str) -> bool:
        """Whether the service holds this command now; False also where it does not say."""
        try:
            return await self._lives(request, ref)
        except (LinkError, RemoteProtocolError) as exc:
            _log.info("asking for %s failed: %s", ref, exc, extra={"interaction": request.interaction.id})
            return False

    async def _lives(self, request: Dispatch, ref: str) -> bool:
        """Whether the service holds what went under a reference. A read of one phase, which cannot be looked at
        (section 4.2), is called back: what cannot be given back lives, and what can is gone then.

        Raises:
            LinkError, RemoteProtocolError: it does not say.
        """
        if request.phase:
            outcome = dm.read_cancelled(await self._ask(dm.cancel_call(ref), request.tap))
            return outcome is dm.Cancelled.NOT_CANCELLABLE
        message = await self._fetch(ref, request.tap)
        if message is None or not self._is_of(request, ref, message):
            return False
        self._staged(ref, message)
        return True

    def _is_of(self, request: Dispatch, ref: str, message: dm.Message) -> bool:
        """Whether a message under our correlation id is this command; another workspace may use the same ids."""
        if message is dm.UNSHOWN:
            return True
        sent = self._sent.get(ref)
        is_known = sent is not None and bool(sent.id) and sent.id == message.id
        return is_known or (message.serial == request.device.serial and message.command == request.spec.name)

    def _adopted(self, ref: str) -> Accepted:
        self._tell(Progress(ref, "found", "The head-end had taken it; it is not sent again."))
        return Accepted(ref)

    def _uncertain(self, ref: str, why: str) -> Accepted:
        text = f"{why} It may have been taken, or even finished, so it is waited for and not sent again."
        self._tell(Progress(ref, "uncertain", text, "ENQUEUE_UNSEEN"))
        return Accepted(ref)

    def _token_of(self, request: Dispatch) -> str:
        """A made token goes as it was made; a typed one has 20 digits. Raises DeliveryFailure, ParameterError."""
        made = request.interaction.token
        makers = rules.token_plugins(request.device, self._settings)
        if made and any(plugin.startswith(rules.STUB) for plugin in makers):
            return made
        return calin_rules.token_of(request)

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        """Look at a command. One that is not there (404) is no failure: see the head of this file.

        Raises:
            LinkError, RemoteProtocolError: nobody knows; looked at again.
        """
        self._await_under(ref, request)
        if request.phase:
            await self._look_at_phase(request, ref)
            return None
        async with self._looks:
            message = await self._fetch(ref, request.tap)
        if message is None or not self._is_of(request, ref, message):
            self._absent(request, ref)
            return None
        self._gone.pop(ref, None)
        self._staged(ref, message)
        self._say_if_slow(ref, rules.plugin_of(request.device))
        if message.is_final:
            self._ended(ref, message, request.device, rules.plugin_of(request.device))
        return None

    async def _look_at_phase(self, request: Dispatch, ref: str) -> None:
        """A read of one phase cannot be looked at (section 4.2), but called back: that tells whether it still lives."""
        now = self._clock.monotonic()
        if ref not in self._gone:
            self._remember(self._gone, ref, now)
        if now - self._gone[ref] < self._pace.phase_s:
            return
        self._remember(self._gone, ref, now)
        async with self._looks:
            outcome = dm.read_cancelled(await self._ask(dm.cancel_call(ref), request.tap))
        if outcome is dm.Cancelled.NOT_CANCELLABLE:
            return
        text = LOST if outcome is dm.Cancelled.NOT_FOUND else "It waited long at the head-end and was called back."
        self._tell(Refused(ref, "ANSWER_LOST", text, Disposition.RETRY if self._has_webhook else Disposition.FINAL))

    def _absent(self, request: Dispatch, ref: str) -> None:
        """See the head of this file."""
        if self._link is not LinkState.ONLINE:
            return
        now = self._clock.monotonic()
        if ref not in self._gone:
            self._remember(self._gone, ref, now)
            return
        since = max(self._gone[ref], self._up_since)  # while it was away it posted nothing
        if self._has_webhook and now - since < self._gone_s + self._lag_s:
            return
        del self._gone[ref]
        was_seen = ref in self._stages
        text = LOST if was_seen else UNSEEN
        disposition = Disposition.RETRY
        if was_seen and not self._has_webhook:
            text = "The head-end has finished this command; without a webhook its answer cannot be seen."
            disposition = Disposition.FINAL
        if request.spec.has_effect:
            disposition = Disposition.UNKNOWN
        self._tell(Refused(ref, "ANSWER_LOST", text, disposition))

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        """Whether the service still holds the command; of a phase it does not say."""
        return not request.phase and await self._fetch(ref, request.tap) is not None

    async def cancel(self, request: Dispatch, ref: str) -> Disposition | None:
        """Section 4.3; no event follows. See ``Canceller``.

        What the service does not hold any more has ended there, or somebody else cancelled it. One that had left its
        queue when it was last seen goes on: its event may be under way. One that still waited there was most likely
        cancelled, and nothing will ever be said of it, so it ends: a read as failed, anything else as unknown, since it
        may have been handed over after that look. An event that comes all the same completes it.
        """
        before = None if request.phase else await self._fetch(ref, request.tap)
        if before is not None:
            self._staged(ref, before)
        outcome = dm.read_cancelled(await self._ask(dm.cancel_call(ref), request.tap))
        if outcome is dm.Cancelled.NOT_CANCELLABLE:
            return None
        if outcome is dm.Cancelled.NOT_FOUND:
            stage = self._stages.get(ref)
            if stage is None or not stage.waits:
                raise DeliveryFailure("NOT_THERE", NOT_THERE, Disposition.RETRY)
            disposition = Disposition.UNKNOWN if request.spec.has_effect else Disposition.FINAL
            raise DeliveryFailure("CANCELLED_ELSEWHERE", ELSEWHERE, disposition)
        was_tried = before is dm.UNSHOWN or (
            before is not None and (before.retry_count > 0 or before.status == dm.Status.TO_RETRY)
        )
        return Disposition.UNKNOWN if was_tried else Disposition.FINAL

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        """No command is answered by its effect."""
        return None

    async def verify(self, request: Dispatch) -> Answer | None:
        """Cannot tell: a read back takes the way of a command of its own (``follow_up_on_failure``)."""
        return None

    # ---------------------------------------------------------------- tokens (section 5)

    async def make_token(self, request: Dispatch, issued: datetime) -> str:
        """A token of the plugin that makes them for this meter. Where that may be a sale, one that may exist is never
        made again.

        Raises:
            DeliveryFailure: FINAL where none was made, UNKNOWN where one may have been, RETRY where it does not matter.
        """
        plugins = rules.token_plugins(request.device, self._settings)
        if not plugins:
            text = f"The plugin {rules.plugin_of(request.device)} makes no tokens; name one that does at the head-end."
            raise DeliveryFailure("NO_TOKEN_SERVICE", text, Disposition.FINAL)
        for plugin in plugins[:-1]:  # nobody knows whether it makes tokens
            try:
                return await self._token_from(plugin, request, issued)
            except DeliveryFailure as exc:
                cause = exc.__cause__
                if not isinstance(cause, dm.ServiceError) or cause.fault is not dm.Fault.REFUSED:
                    raise
        return await self._token_from(plugins[-1], request, issued)

    async def _token_from(self, plugin: str, request: Dispatch, issued: datetime) -> str:
        """Raises DeliveryFailure, see ``make_token``."""
        device = request.device
        known = dm.plugin_named(plugin)
        again = Disposition.UNKNOWN if known.mints_for_money else Disposition.RETRY
        key = calin_rules.decoder_key(device, self._context.secrets) if known.needs_decoder_key else ""
        self._learn_secret(key)
        try:
            call = dm.token_call(
                request.spec.name,
                device.serial,
                plugin=plugin,
                issued=issued,
                decoder_key=key,
                kwh=request.params.get("transactive_kwh"),
                power_limit=request.params.get("target_power_limit"),
            )
        except (ParameterError, LocalProtocolError) as exc:
            raise DeliveryFailure("TOKEN_FAILED", str(exc), Disposition.FINAL) from exc
        try:
            token = dm.read_token(await self._ask(call, request.tap, timeout_s=rules.TOKEN_S))
            return token if plugin.startswith(rules.STUB) else calin.check_token(token.replace("-", ""))
        except LinkError as exc:
            disposition = again if exc.may_have_arrived else Disposition.RETRY
            raise DeliveryFailure("TOKEN_FAILED", str(exc), disposition) from exc
        except dm.ServiceError as exc:
            disposition = again if exc.may_be_done else Disposition.FINAL
            raise DeliveryFailure("TOKEN_FAILED", str(exc), disposition, exc.vendor) from exc
        except (RemoteProtocolError, ParameterError) as exc:
            raise DeliveryFailure("TOKEN_FAILED", f"The head-end made no usable token: {exc}", again) from exc

    # ---------------------------------------------------------------- events (section 7)

    def _webhook(self, event: WebhookEvent) -> bool | Awaitable[bool]:
        """Take one signed event; the service hears of it once it is on disk."""
        if self._uplinks.qsize() >= MAX_UPLINKS:
            return False
        try:
            cleaned = self._clean(event.data)
            found = dm.read_event(event.body if cleaned == event.data else dm.read_json(cleaned))
        except RemoteProtocolError as exc:
            self._ignored["no_event"] += 1
            _log.info("a webhook was let pass: %s", exc, extra={"adapter": DeviceMessaging.key})
            return True
        if self._is_new(found):
            self._event(found, cleaned)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tell(Kept(done, (found.id,) if found.id in self._seen else ()))
        return _is_kept(done)

    def _is_new(self, event: dm.Event) -> bool:
        """Section 7.2: the same id is the same event, also after a restart of this program. What is older than ids are
        remembered counts for nothing."""
        age_s = 0.0
        if event.occurred is not None:
            age_s = (self._clock.now() - event.occurred).total_seconds()
        if age_s > self._pace.replay_s:
            self._ignored["too_old"] += 1
            return False
        now = self._clock.monotonic()
        while self._seen and (
            len(self._seen) >= MAX_SEEN or now - next(iter(self._seen.values())) > 2 * self._pace.replay_s
        ):
            self._seen.popitem(last=False)
        if event.id in self._seen:
            return False
        self._seen[event.id] = now
        if event.occurred is not None:
            self._least_age_s = min(age_s, self._least_age_s)  # of one that did not wait: what the clocks differ by
            self._lag_s = age_s - self._least_age_s
        return True

    def _event(self, event: dm.Event, data: bytes) -> None:
        message = event.message
        device = self._meters.get(message.serial)
        run = rules.run_of(self._prefix, message.correlation_id)
        ref = self._awaited(message.correlation_id, run)
        sent = self._sent.get(ref)
        is_ours = not message.unsolicited and run is not None
        if sent is not None and not sent.is_told_by(message):
            is_ours, sent = False, None
        if device is not None or sent is not None:
            tap = sent.tap if sent is not None else self._context.tap_of(device.id if device is not None else "")
            link = self._listener.name if self._listener is not None else "webhook"
            tap(Direction.IN, dm.hide(data.decode("utf-8", "replace")).encode(), EVENT, link=link)
        if message.unsolicited:
            self._unsolicited(event, device)
        elif is_ours:
            self._about(ref, event, self._meters.get(sent.serial) if sent is not None else device)

    def _awaited(self, ref: str, run: rules.Run | None) -> str:
        """The reference that an event counts for: of one that an earlier run of this program gave out, the present one
        of the same command."""
        if run is None or ref in self._sent:
            return ref
        return self._present.get(replace(run, attempt=1), ref)

    def _about(self, ref: str, event: dm.Event, device: Device | None) -> None:
        message = event.message
        stage = self._stages.get(ref)
        if stage is None or (stage.status, stage.retries) == (dm.Status.QUEUED, 0):
            self._remember(self._stages, ref, _Stage(message.status, 0, self._clock.monotonic()))
        if message.status == dm.Status.SENT_TO_NS:
            self._for(ref, Progress(ref, "handed on", "The head-end began to send it to the network or the vendor."))
        elif message.is_final and device is not None:
            self._ended(ref, message, device, event.plugin)

    def _for(self, ref: str, *uplinks: Uplink) -> None:
        """Tell of a command; while it is being handed over, its reference is not awaited yet."""
        held = self._held.get(ref)
        if held is not None:
            held.extend(uplinks)
        else:
            self._tell(*uplinks)

    def _ended(self, ref: str, message: dm.Message, device: Device, plugin: str) -> None:
        """A final status; by event or, rarely, by a look. ``device``: the one that was asked."""
        self._gone.pop(ref, None)
        if message.id:
            if (message.id, message.status) in self._ends:
                return
            self._remember(self._ends, (message.id, message.status), None)
        is_other = message.serial not in ("", device.serial)
        if is_other:
            text = (
                f"{message.command or 'A command'} to the meter {device.serial} was answered by the meter "
                f"{message.serial}, the head-end says. Compare its serial with the network server's."
            )
            self._tell(Found(self._found("ANSWERED_BY_OTHER", Severity.WARNING, text)))
        run = rules.run_of(self._prefix, ref)
        number = run.interaction if run is not None else None
        told = [
            Progress(ref, "tried again", entry.words(), entry.code) for entry in reversed(message.history)
            if not entry.is_final
        ]  # fmt: skip
        self._for(ref, *told)
        if message.status == dm.Status.DELIVERY_SUCCESSFUL:
            if message.relay is not None and not is_other:
                self._tell(Facts(device.id, self._link_metrics(message.relay)))
            self._for(ref, LateOrPushed(ref, self._answer(ref, message, device, plugin), number))
            return
        tries = max(1, len(message.history))
        reason = dm.hide(message.history[0].reason).rstrip(".") if message.history else "no reason given"
        text = f"The head-end gave up after {tries} {'try' if tries == 1 else 'tries'}: {reason}."
        detail = "\n".join(entry.words() for entry in message.history)
        disposition = Disposition.FINAL
        if self._may_be_used(ref, message):
            disposition = Disposition.UNKNOWN
            text += f" {calin_rules.USED}"
        self._for(ref, Refused(ref, "DELIVERY_FAILED", text, disposition, detail, number))

    def _may_be_used(self, ref: str, message: dm.Message) -> bool:
        """Whether a token that is refused now may have been taken in a try before (section 6.3)."""
        run = rules.run_of(self._prefix, ref)
        is_later = message.was_tried_before or (run is not None and run.number > 1)
        return is_later and message.command in dm.TOKEN_COMMANDS

    def _answer(self, ref: str, message: dm.Message, device: Device, plugin: str) -> Answer:
        run = rules.run_of(self._prefix, ref)
        result = dm.read_result(message.command, message.response, plugin=plugin)
        if result.fault:
            if self._may_be_used(ref, message):
                text = f"{result.fault} {calin_rules.USED}"
                return Answer(execution=Execution.UNKNOWN, code=result.code, text=text, result=result.fields)
            return Answer(execution=Execution.FAILURE, code=result.code, text=result.fault, result=result.fields)
        fields = _fields(message, result)
        is_phase_read = message.command in dm.PHASE_READS and not message.phase
        if is_phase_read and plugin == dm.PHASE_A_ONLY and calin_rules.is_three_phase(device):
            fields |= {"phase": "A", "phases_missing": ["B", "C"]}  # command-flow D-12
        number = run.interaction if run is not None else None
        return Answer(result=fields, samples=calin_rules.samples_of(fields, device, self._clock.now(), number))

    def _link_metrics(self, relay: dm.Relay) -> dict[str, Any]:
        """Command-flow 6.3."""
        metrics = {"snr": relay.snr, "rssi": relay.rssi, "updated_at": self._clock.now()}
        return {"connection_metrics": metrics, **({"relay_node": relay.name} if relay.name else {})}

    def _unsolicited(self, event: dm.Event, device: Device | None) -> None:
        message = event.message
        if device is None:
            self._stranger(message)
            return
        if message.relay is not None:
            self._tell(Facts(device.id, self._link_metrics(message.relay)))
        result = dm.read_result(message.command, message.response, plugin=event.plugin)
        if result.fault:
            return
        if message.command == dm.JOIN_NETWORK:  # no contact (command-flow 0.2)
            self._tell(Facts(device.id, {"joined_at": self._clock.now()}, is_contact=False))
        elif message.command == dm.READ_REPORT:
            fields = result.fields
            named = {"meter_status": "meter_status", "purchase_remain_source_1": "kwh_credit_available",
                     "is_on": "is_on"}  # fmt: skip
            facts = {ours: fields[name] for name, ours in named.items() if fields.get(name) is not None}
            freeze_time = str(fields.get("freeze_time") or "")
            samples = calin_rules.samples_of(fields, device, self._clock.now(), meter_time=freeze_time)
            answer = Answer(result=fields, samples=samples, facts=facts)
            self._tell(Report(device=device.id, command=dm.READ_REPORT, answer=answer, dedupe=freeze_time or event.id))

    def _stranger(self, message: dm.Message) -> None:
        """A meter that no device of this connection stands for: told once."""
        if message.serial in self._strangers or len(self._strangers) >= MAX_STRANGERS:
            return
        self._strangers.add(message.serial)
        text = (
            f"The meter {message.serial} speaks at the head-end, and no device here is reached through it under this "
            "serial. Add it below the head-end, or switch its way there, if what it says shall be kept."
        )
        self._tell(Found(self._found("UNKNOWN_METER", Severity.INFO, text)))

    # ---------------------------------------------------------------- stages (section 6)

    def _staged(self, ref: str, message: dm.Message) -> None:
        """What a look shows of the way: each new stage is told once."""
        now = self._clock.monotonic()
        before = self._stages.get(ref) or _Stage("", 0, now)
        if message is dm.UNSHOWN:
            text = "The head-end holds it and cannot show it; its end is waited for."
            self._tell_once(ref, before, Progress(ref, "at the head-end", text, "HEAD_END_UNSHOWN"))
            return
        sent = self._sent.get(ref)
        if sent is not None and message.id:
            sent.id = message.id
        if (message.status, message.retry_count) != (before.status, before.retries):
            self._remember(self._stages, ref, _Stage(message.status, message.retry_count, now))
        if message.retry_count > before.retries and message.history:
            self._for(ref, Progress(ref, "tried again", message.history[0].words(), message.history[0].code))
        if message.status == before.status or message.is_final:
            return
        self._for(ref, Progress(ref, "at the head-end", f"Its status there is {message.status}."))
        if message.status == dm.Status.SENT_TO_DEVICE:
            self._for(ref, Transmitted(ref))

    def _say_if_slow(self, ref: str, plugin: str) -> None:
        """A message that moves no more (its plugin may have been taken away) is waited for, and that is said."""
        stage = self._stages.get(ref)
        if stage is None:
            return
        usual_s = self._config.stage_s(plugin, rules.pattern_of(plugin), stage.status, stage.retries)
        age_s = self._clock.monotonic() - stage.since
        if usual_s is None or age_s <= SLOW * usual_s:
            return
        text = (
            f"Its status at the head-end has been {stage.status} for {_duration(age_s)}, where up to "
            f"{_duration(usual_s)} is usual. Look whether the plugin {plugin} is still enabled there."
        )
        self._tell_once(ref, stage, Progress(ref, "standing still", text, "HEAD_END_SLOW"))

    def _tell_once(self, ref: str, stage: _Stage, told: Progress) -> None:
        """Once for each stage."""
        if told.code not in stage.told:
            stage.told.add(told.code)
            self._remember(self._stages, ref, stage)
            self._for(ref, told)

    @staticmethod
    def _remember(what: OrderedDict[K, T], key: K, value: T) -> None:
        what[key] = value
        what.move_to_end(key)
        while len(what) > MAX_REFS:
            what.popitem(last=False)

    # ---------------------------------------------------------------- the service itself

    async def _watch(self) -> None:
        while True:
            try:
                await self.check_health()
            except LinkError as exc:
                if exc.reason is LinkReason.CLOSED and self._web.is_closed:
                    return
                self._service(str(exc))
            except RemoteProtocolError as exc:
                self._service(str(exc))
            else:
                is_down = await self._is_store_down()
                self._service(NO_STORE if is_down else "", "HEAD_END_STORE")
                if not is_down:
                    await self._look_at_metrics()
                    if self._mute >= MAX_MUTE:
                        continue
            self._look_at_refusals()
            await asyncio.sleep(self._pace.health_s)

    async def _is_store_down(self) -> bool:
        """Whether a service that lives has lost its store, which its health does not say: seen by a question that the
        store has to answer, once others were not answered. Commands are held back until it answers."""
        if self._mute < MAX_MUTE and "HEAD_END_STORE" not in self._raised:
            return False
        try:
            await self._fetch(f"{self._prefix}test", None)
        except LinkError as exc:
            return exc.reason is LinkReason.SILENT
        except dm.ServiceError as exc:
            return exc.fault is dm.Fault.SERVER
        except RemoteProtocolError:
            return False
        return False

    def _service(self, trouble: str, code: str = "HEAD_END") -> None:
        link = LinkState.FAULT if trouble else LinkState.ONLINE
        if link is not self._link:
            self._link = link
            self._up_since = self._clock.monotonic()
            self._tell(*(LinkChange(device.id, link, trouble) for device in self._context.devices))
        for name, text in ALIVE.items():
            is_meant = bool(trouble) and name == code
            self._finding(name, trouble if is_meant else text, cleared=not is_meant)

    def _look_at_refusals(self) -> None:
        """Tell of events that counted for nothing since the last look; nothing of what they said is kept."""
        if self._listener is None:
            return
        counts = self._listener.counts + self._ignored
        fresh = {name: counts[name] - self._refused[name] for name in REFUSALS if counts[name] > self._refused[name]}
        self._refused = Counter({name: counts[name] for name in REFUSALS})
        text = "No event has been refused since."
        if fresh:
            listed = ", ".join(f"{number} {REFUSALS[name]}" for name, number in fresh.items())
            text = f"Events were refused at {self._listener.name}: {listed}."
            if "not_signed" in fresh:
                text += " Compare the head-end's webhook secret."
            if "too_old" in fresh:
                text += " Compare the clocks of both computers."
        self._finding("WEBHOOK", text, cleared=not fresh)

    # ---------------------------------------------------------------- what the service counts (section 11)

    async def _look_at_metrics(self) -> None:
        """Now and then. A service may keep its counts closed: that is said once."""
        now = self._clock.monotonic()
        if now < self._metrics_at:
            return
        self._metrics_at = now + self._pace.metrics_s
        try:
            metrics = await self.metrics(None)
        except LinkError:
            return  # the next question for its health says so
        except RemoteProtocolError as exc:
            text = f"{exc} Its queues and the events it ignores are not watched."
            self._finding("HEAD_END_METRICS", text, severity=Severity.INFO)
            return
        self._finding("HEAD_END_METRICS", "The head-end shows its counts.", cleared=True)
        self._take_in(metrics)

    def _take_in(self, metrics: counted.Metrics) -> None:
        before, self._counted = self._counted, metrics
        if metrics != before and self._head_end is not None:
            self._tell(Facts(self._head_end.id, metrics.facts()))
        if before is None:
            return
        for counter, names, code, words in GROWN:
            grown = counted.growth(getattr(before, counter), getattr(metrics, counter))
            listed = ", ".join(f"{n} of {name}" for name, n in grown.items() if names is None or name in names)
            self._finding(code, words.format(listed=listed) if listed else "No more since.", cleared=not listed)

    async def _read_metrics(self, request: Dispatch) -> Answer:
        """Raises LinkError, DeliveryFailure: closed or unreadable."""
        try:
            metrics = await self.metrics(request.tap)
        except RemoteProtocolError as exc:
            raise DeliveryFailure("NO_METRICS", str(exc), Disposition.FINAL) from exc
        return Answer(result=metrics.table(), facts=metrics.facts())

    # ---------------------------------------------------------------- findings

    def _finding(
        self, code: str, text: str, *, severity: Severity = Severity.WARNING, cleared: bool = False
    ) -> None:  # fmt: skip
        """A lasting finding, told when it begins and when it ends."""
        if cleared is (code not in self._raised) or not self._context.devices:
            return
        (self._raised.discard if cleared else self._raised.add)(code)
        self._tell(Found(self._found(code, Severity.INFO if cleared else severity, text, cleared=cleared)))

    def _found(self, code: str, severity: Severity, text: str, *, cleared: bool = False) -> Finding:
        device = self._head_end or self._context.devices[0]
        return Finding(
            at=self._clock.now(), device=device.id, severity=severity, code=code, text=text, cleared=cleared
        )  # fmt: skip


# ---------------------------------------------------------------- small helpers


def _fields(message: dm.Message, result: dm.Result) -> dict[str, Any]:
    """The result that a successful message brings."""
    fields = dict(result.fields)
    if message.phase and message.command in dm.PHASE_READS:
        fields.setdefault("phase", message.phase)
    return fields


def _looked_at(exchange: rereading.HttpExchange) -> dm.Message | None:
    """The message in the answer to a look; None where there is none."""
    try:
        return dm.read_message(dm.read_answer(exchange.status, exchange.body))
    except dm.ServiceError:
        return None


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.3g} s"


async def _is_kept(done: asyncio.Future[None]) -> bool:
    try:
        await done
    except StoreError:
        return False
    return True
