"""The device messaging service: a queue with a delivery engine in front of meters, reporting by webhook.

Source of the rules: headend-device-messaging.md; section numbers below are its own. Where it says nothing, the choice
made stands in a comment beginning with "Choice:". Nothing of the adapter's codec is used. Meters answer behind the
plugins calin-chirpstack, calin-api-v1 and calin-api-v2 as they would behind the service; the stub plugins do what
section 3.1 says of them, or answer like those when ``is_auto`` is set.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import json
import random
import re
import secrets
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import httpx

from app.errors import ConfigError
from app.simulators import _device_messaging_bodies as bodies
from app.simulators._device_messaging_plugins import (
    NOT_EXECUTED,
    PLUGINS,
    Data,
    DeliveryError,
    Plugin,
    Result,
    check_command,
    execute,
    report_data,
)
from app.simulators._http import (
    WIRE_FAULTS,
    Answer,
    FaultKind,
    HttpSim,
    Request,
    SimClock,
    Struck,
    abort,
    count,
    fault_help,
    is_http_status,
    is_seconds,
    one_of,
    read_extra,
    seconds,
    yes,
)
from app.simulators.calin_meters import METER_FAULTS, CalinMeter, CalinMeterConfig, MeterField, demo_field
from app.simulators.catalog import Announce, SimOptions

API_KEY: Final = "sim-api-key"
EVENT_ID: Final = "X-Device-Messaging-Event-Id"
SIGNATURE: Final = "X-Device-Messaging-Signature"
PER_TICK: Final = 50  # section 6.2: due messages per stage and tick
MAX_PARAMETER: Final = 100  # section 4.2
STORE_S: Final = 9.5  # how long the service waits for its store (recorded)
MAX_KEPT: Final = 20_000  # steps and webhooks kept for tests to look at
FIRST_TASK: Final = 7200  # of both vendor plugins: their ids share one lookup (section 6.5)
GATEWAYS: Final = ("0016c001f153a14c", "0016c001f153a14d")
RETRY_BUCKETS: Final = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16)
EPS: Final = 1e-9
_BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _is_percent(text: str) -> bool:
    return is_seconds(text) and float(text) <= 100


MESSAGING_FAULTS: Final[Mapping[str, FaultKind]] = {
    **WIRE_FAULTS,
    **METER_FAULTS,
    # requests
    "unauthorized": FaultKind("401 although the key is good"),
    "not-found": FaultKind("a message that lives is answered with 404"),
    "early-webhook": FaultKind("the answer to enqueue comes after the first webhook of its message"),
    "restart": FaultKind(
        "carried out, then the service dies without an answer and starts again; =lost empties its store", "kept",
        one_of("kept", "lost"),
    ),
    "store-down": FaultKind("Redis is away: all but /healthz and the documentation is a 500 after ten seconds, and "
                            "nothing is done", lasting=True),
    "metrics-closed": FaultKind("GET /metrics answers with this status, as behind a proxy", "404", is_http_status),
    "no-token": FaultKind("the vendor issues no token: 500"),
    "mint-error": FaultKind("the vendor's token service answers with this status: 500 with code", "503",
                            is_http_status),
    # delivery; scope: meter, command, plugin or correlation id
    "engine-off": FaultKind("commands stay in the queue, nothing is delivered", lasting=True),
    "ns-error": FaultKind("the vendor refuses the hand-over with this code, to be tried again", "503", is_http_status),
    "ns-permanent": FaultKind("the vendor refuses the hand-over for good"),
    "ns-slow": FaultKind("the hand-over takes this many seconds", "25", is_seconds),
    "queue-forgets": FaultKind("push: accepted by the network server and lost there"),
    "no-txack": FaultKind("push: the gateway's acknowledgement is ignored, the message is not seen on its way"),
    "nack": FaultKind("push: the meter does not acknowledge, nothing is carried out"),
    "poll-error": FaultKind("pull: asking for the task fails, so the command is sent again"),
    "vanish": FaultKind("the message is deleted after the hand-over without a webhook, as at the end of its 7 days"),
    "null-values": FaultKind("the values of a reading are null"),
    # webhooks; scope: also a delivery status such as SENT_TO_NS
    "webhook-lost": FaultKind("this share (%) of webhooks goes to the dead letters untried", "10", _is_percent),
    "webhook-twice": FaultKind("the webhook is posted twice"),
    "webhook-late": FaultKind("the webhook is this many seconds late, others overtake it", "5", is_seconds),
    "webhook-reorder": FaultKind("each webhook is late by a random time of up to this many seconds", "10", is_seconds),
    "webhook-answer-lost": FaultKind("the receiver's answer is not seen, so the webhook is posted again later"),
    "final-again": FaultKind("the end of a command is told twice, by events of their own; =failed: the second time as "
                             "failed", "same", one_of("same", "failed")),
    "webhook-odd": FaultKind("the webhook has unknown keys, and one with an unknown status comes before it"),
    "bad-signature": FaultKind("the webhook is signed with another secret"),
    "no-signature": FaultKind("the webhook is not signed"),
    "forged": FaultKind("a webhook of somebody else, signed with another secret, says the opposite before ours"),
}  # fmt: skip
FAULTS: Final[Mapping[str, str]] = fault_help(MESSAGING_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagingConfig:
    """What is fixed at the start. ``*_s`` are simulated seconds but for ``webhook_timeout_s``; defaults of section 9.

    ``api_key`` "" leaves the routes open, ``webhook_secret`` "" leaves webhooks unsigned, ``webhook`` "" reports
    nothing. ``is_auto``: the stub plugins answer like meters; every serial of 11 digits then is a meter.
    """

    port: int = 0
    api_key: str = field(default=API_KEY, repr=False)
    webhook: str = ""
    webhook_secret: str = field(default="", repr=False)
    plugins: tuple[str, ...] = tuple(PLUGINS)
    is_auto: bool = False
    faults: tuple[str, ...] = ()
    control: bool = False  # offer POST /_sim/faults
    seed: int = 0
    # delivery
    max_retries: int = 11
    retry_base_s: float = 2.0
    retry_multiplier: float = 2.0
    retry_max_s: float = 3600.0
    message_ttl_s: float = 604_800.0
    ns_wait_s: float = 20.0
    relay_wait_s: float = 900.0
    device_wait_s: float = 12.0
    initial_poll_s: float = 10.0
    give_up_s: float = 48 * 3600.0
    tick_s: float = 1.0
    spacing_s: float = 2.0
    in_flight: int = 5
    # webhooks
    webhook_attempts: int = 6
    webhook_base_s: float = 2.0
    webhook_multiplier: float = 2.0
    webhook_max_s: float = 60.0
    webhook_timeout_s: float = 10.0
    # behind the plugins
    ns_s: float = 0.1  # a hand-over to ChirpStack or to a stub
    vendor_s: float = 0.5  # a call of the vendor; 10 to 30 s in the real one
    execute_s: float = 4.0  # from the vendor's task to the meter's answer
    downlink_s: float = 0.6
    uplink_s: float = 1.4
    report_every_s: float = 0.0  # 0: meters send no reports
    restart_s: float = 2.0  # how long the service is away


class Stage(StrEnum):
    """Where a message is (section 6.2)."""

    READY = "ready"
    NS = "ns"
    RELAY_NODE = "relayNode"
    DEVICE = "device"
    TASK = "awaitingTask"
    RETRY = "retry"


@dataclass(slots=True, kw_only=True)
class Message:
    """A message of the store; it is gone as soon as it is finished or cancelled."""

    id: str
    command: str
    priority: int
    plugin: Plugin
    network_id: int | None
    device: dict[str, Any]
    queue: str
    created: float
    request_data: dict[str, Any] | None = field(default=None, repr=False)
    phase: str = ""
    correlation_id: str = ""
    rank: float = 0.0  # what the ready queue is ordered by, largest first
    reference: str = ""
    status: str = "QUEUED"
    stage: Stage = Stage.READY
    entry: int = 0  # grows with every change of stage
    was_told: bool = False
    retry_count: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def serial(self) -> str:
        return str(self.device["externalReference"])

    @property
    def index(self) -> str:
        """Key of the index by correlation id (section 12), "" without one."""
        suffix = f"_ph{self.phase}" if self.phase else ""
        return f"{self.correlation_id}{suffix}" if self.correlation_id else ""

    def body(self) -> dict[str, Any]:
        """Section 4.1."""
        found: dict[str, Any] = {
            "id": self.id,
            "commandType": self.command,
            "priority": self.priority,
            "pluginId": self.plugin.key,
            "requestData": self.request_data,
            "phase": self.phase or None,
            "networkId": self.network_id,
            "correlationId": self.correlation_id or None,
            "device": self.device,
            "deliveryQueueId": self.reference,
            "deliveryStatus": self.status,
            "retryCount": self.retry_count,
            "failureHistory": self.failures,
        }
        return {name: value for name, value in found.items() if value is not None or name == "networkId"}


class Step(NamedTuple):
    """One change of a message: simulated seconds since the start, ids, new status ("CANCELLED", "EXPIRED" too)."""

    at: float
    id: str
    correlation_id: str
    status: str


class Posted(NamedTuple):
    """One try to deliver a webhook: simulated seconds since the start, the body, the receiver's status (0: none)."""

    at: float
    body: bytes
    status: int


@dataclass(slots=True, kw_only=True)
class _Queue:
    plugin: Plugin
    heap: list[tuple[float, str, int]] = field(default_factory=list)  # -rank, id, entry
    free_at: float = 0.0
    running: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class _Event:
    id: str
    body: bytes
    subjects: tuple[str, ...]
    message_id: str = ""
    attempts: int = 0
    is_forged: bool = False


@dataclass(slots=True, kw_only=True)
class _Task:
    """A task at the vendor."""

    outcome: Result | DeliveryError | None = None


class _Refusal(Exception):
    """A request the service does not carry out."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(str(status))
        self.answer = Answer(status, body)


STATUS_TEXT: Final[Mapping[int, str]] = {
    400: "Bad Request", 404: "Not Found", 413: "Payload Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
    500: "Internal Server Error",
}  # fmt: skip


def _framework_error(status: int, message: str, code: str = "") -> dict[str, Any]:
    """The third and fourth error shape of section 2.2."""
    body: dict[str, Any] = {"statusCode": status, "error": STATUS_TEXT.get(status, "Error"), "message": message}
    return ({"code": code} if code else {}) | body


class DeviceMessagingSimulator(HttpSim):
    """The service: ``async with DeviceMessagingSimulator(field, config) as sim``, then ``sim.url`` answers.

    To look at: ``messages`` that live, by id; ``steps`` of all; ``posted`` webhooks, ``dead_letters``; ``webhook`` may
    be changed at run time. A jump of the clock is one tick, however long it is: let it jump in steps.

    Raises:
        ConfigError: an unknown plugin.
    """

    def __init__(self, meters: MeterField | None = None, config: MessagingConfig | None = None) -> None:
        self.config = config or MessagingConfig()
        for key in self.config.plugins:
            if key not in PLUGINS:
                raise ConfigError(f"There is no plugin {key!r}.", key="plugins", expected=", ".join(PLUGINS))
        self.field = meters or demo_field(seed=self.config.seed)
        super().__init__(
            "device-messaging",
            MESSAGING_FAULTS,
            port=self.config.port,
            faults=self.config.faults,
            clock=self.field.clock,
            control=self.config.control,
        )
        self.webhook = self.config.webhook
        self.messages: dict[str, Message] = {}
        self.steps: deque[Step] = deque(maxlen=MAX_KEPT)
        self.posted: deque[Posted] = deque(maxlen=MAX_KEPT)
        self.dead_letters: deque[bytes] = deque(maxlen=MAX_KEPT)
        self.totals: Counter[str] = Counter()  # final statuses
        self.webhook_totals: Counter[str] = Counter()  # posted, retried, dlq
        self.unhandled: Counter[str] = Counter()  # by plugin
        self.claim_misses: Counter[str] = Counter()  # by stage
        self.restarts = 0
        self.disabled: set[str] = set()  # plugins that are not enabled any more since the service started again
        self._retry_counts: Counter[int] = Counter()
        self._random = random.Random(self.config.seed)  # jitter, shares and signal strengths, nothing secret
        self._last_ulid = (0, 0)
        self._by_index: dict[str, str] = {}
        self._by_reference: dict[str, str] = {}
        self._births: deque[tuple[float, str]] = deque()
        self._queues: dict[str, _Queue] = {}
        self._due: dict[Stage, list[tuple[float, str, int]]] = {stage: [] for stage in Stage}
        self._sending: set[str] = set()
        self._outbox: deque[_Event] = deque()
        self._delayed: list[tuple[float, int, _Event]] = []
        self._delay_number = 0
        self._held: dict[str, asyncio.Event] = {}
        self._network: set[str] = set()  # queue ids the network server still has
        self._tasks_at_vendor: dict[str, _Task] = {}
        self._used: set[tuple[str, str]] = set()  # meter and token the vendor has seen carried out
        self._next_task = FIRST_TASK
        self._is_down = False
        self._client: httpx.AsyncClient | None = None
        self.field.listeners.append(self._notify)

    # -- what tests and the demo ask and do

    @property
    def waiting_webhooks(self) -> int:
        """Events that are to be posted now; those that wait for their next try are not counted."""
        return len(self._outbox)

    def find(self, correlation_id: str) -> Message | None:
        """The message that lives under this id, whatever its phase."""
        return next((self.messages[found] for found in self._found(correlation_id)), None)

    def report(self, serial: str) -> None:
        """Let the meter send its periodic report now, if it has voltage."""
        meter = self.field[serial]
        if not meter.is_dark:
            self._tell_unsolicited("calin-chirpstack", "READ_REPORT", meter, report_data(meter))

    def join(self, serial: str) -> None:
        """Let the meter join its network now, if it has voltage."""
        if not self.field[serial].is_dark:
            self._tell_unsolicited("calin-chirpstack", "JOIN_NETWORK", self.field[serial], {"networkJoined": True})

    async def restart(self, *, keep: bool = True, down_s: float | None = None) -> None:
        """End the process and start it again on the same port; running sends are not awaited (section 6.5).

        ``keep``: the store survives it, with the webhooks that wait. What devices answer meanwhile is lost.
        """
        self.restarts += 1
        self._is_down = True
        self._sending.clear()
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            abort(writer)
        if not keep:
            self.messages.clear()
            self._by_index.clear()
            self._by_reference.clear()
            self._births.clear()
            self._queues.clear()
            self._outbox.clear()
            self._delayed.clear()
            for heap in self._due.values():
                heap.clear()
        for counter in (self.totals, self.webhook_totals, self.unhandled, self.claim_misses, self._retry_counts):
            counter.clear()
        self._notify()
        await self.clock.sleep(self.config.restart_s if down_s is None else down_s)
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self._is_down = False
        self._notify()

    # -- life

    async def _started(self) -> None:
        self._client = httpx.AsyncClient(trust_env=False, timeout=self.config.webhook_timeout_s, follow_redirects=False)
        self._spawn(self._run(), "engine")
        self._spawn(self._post_for_ever(), "webhooks")
        if self.config.report_every_s:
            self._spawn(self._report_for_ever(), "reports")

    async def _stop(self) -> None:
        await super()._stop()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _report_for_ever(self) -> None:
        while True:
            await self.clock.sleep(self.config.report_every_s)
            for serial in list(self.field.meters):
                self.report(serial)

    def _ulid(self) -> str:
        """A ULID whose time is the simulated one; later ones are larger, within a millisecond too."""
        moment = int(self.clock.now.timestamp() * 1000)
        if moment <= self._last_ulid[0]:
            self._last_ulid = (self._last_ulid[0], self._last_ulid[1] + 1)
        else:
            self._last_ulid = (moment, self._random.getrandbits(79))
        value = self._last_ulid[0] << 80 | self._last_ulid[1]
        return "".join(_BASE32[value >> shift & 31] for shift in range(125, -1, -5))

    def _stamp(self) -> str:
        now = self.clock.now
        return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z"

    # -- requests

    def _subjects(self, request: Request) -> tuple[str, ...]:
        body = request.json()
        if not isinstance(body, dict):
            return ()
        device = body.get("device")
        found = [body.get(name) for name in ("commandType", "pluginId", "correlationId", "type")]
        found.append(device.get("externalReference") if isinstance(device, dict) else None)
        return tuple(value for value in found if isinstance(value, str))

    def _error(self, status: int) -> object:
        return _framework_error(status, "fault on demand")

    def _refusal(self, status: int) -> Answer:
        if status == 413:
            return Answer(413, _framework_error(413, "Request body is too large", "FST_ERR_CTP_BODY_TOO_LARGE"))
        return Answer(400, _framework_error(400, "Client Error"))

    async def _answer(self, request: Request) -> Answer:
        def struck(name: str) -> str | None:
            return self.faults.take(name, request.path, f"{request.method}{request.path}", *self._subjects(request))

        try:
            await self._ask_store(request)
            answer = await self._route(request, struck)
        except _Refusal as refusal:
            answer = refusal.answer
        if answer.text is None:
            answer.text = _compact(answer.value)
        self._notify()
        if (state := struck("restart")) is not None:
            await self.restart(keep=state == "kept")
            raise ConnectionResetError("the service died before it answered")
        return answer

    async def _ask_store(self, request: Request) -> None:
        """Wait for a store that is away; the routes that need none do not."""
        if self.faults.value("store-down") is None or request.path in ("/healthz", "/v3/api-docs", "/swagger"):
            return
        await self.clock.sleep(STORE_S)
        text = "Reached the max retries per request limit (which is 20)."
        raise _Refusal(500, _framework_error(500, text))

    async def _route(self, request: Request, struck: Struck) -> Answer:
        match request.method, request.path.split("/")[1:]:
            case "GET", ["healthz"]:
                return Answer(200, {"ok": True})
            case "GET", ["metrics"]:
                if (status := struck("metrics-closed")) is not None:
                    raise _Refusal(int(status), self._error(int(status)))
                text = "\n".join(self._metrics()) + "\n"
                return Answer(200, text=text, content_type="text/plain; version=0.0.4; charset=utf-8")
            case "GET", ["v3", "api-docs"]:
                return Answer(200, OPENAPI)
            case "GET", ["swagger"]:
                return Answer(200, text=SWAGGER_PAGE, content_type="text/html; charset=utf-8")
            case "POST", ["ingress", plugin_id]:
                return self._ingress(request, plugin_id)
            case "POST", ["message", "enqueue"]:
                return await self._enqueue(self._checked(request, struck, bodies.ENQUEUE), struck)
            case "GET", ["message", raw]:
                return self._get(request, raw, struck)
            case "POST", ["message", "cancel"]:
                wanted = self._checked(request, struck, bodies.CANCEL)
                return Answer(200, self._cancel_messages(wanted["correlationId"]))
            case "POST", ["messages", "cancel"]:
                wanted = self._checked(request, struck, bodies.CANCEL_MANY)
                return Answer(
                    200, [self._cancel_messages(correlation_id) for correlation_id in wanted["correlationIds"]]
                )
            case "POST", ["token", "generate"]:
                return await self._generate(self._checked(request, struck, bodies.mint), struck)
        message = f"Route {request.method}:{request.path} not found"
        raise _Refusal(404, {"message": message, "error": "Not Found", "statusCode": 404})

    def _authenticate(self, request: Request, struck: Struck) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        is_good = scheme.lower() == "bearer" and hmac.compare_digest(key.encode(), self.config.api_key.encode())
        if (self.config.api_key and not is_good) or struck("unauthorized") is not None:
            raise _Refusal(401, {"error": "Unauthorized"})

    def _checked(self, request: Request, struck: Struck, rule: bodies.Rule) -> dict[str, Any]:
        """The body of a command route, when the key, the content type and the body are right (section 2.2)."""
        self._authenticate(request, struck)
        value: object = None
        if request.body:
            kind = _content_type(request)
            if kind == "text/plain":
                value = request.body.decode("utf-8", "replace")
            elif kind != "application/json":
                raise _media_type()
            else:
                try:
                    value = bodies.read_json(request.body)
                except ValueError as exc:
                    message = f"Failed to serialize an error. {exc}"
                    code = "FST_ERR_FAILED_ERROR_SERIALIZATION"
                    raise _Refusal(500, {"statusCode": 500, "code": code, "message": message}) from None
        if issues := rule(value, ""):
            raise _Refusal(400, bodies.refusal(issues))
        assert isinstance(value, dict)
        return value

    def _plugin(self, key: str) -> Plugin:
        if key not in self.config.plugins or key in self.disabled:
            raise _Refusal(400, {"error": f"Unknown or disabled pluginId: {key}"})
        return PLUGINS[key]

    async def _enqueue(self, wanted: dict[str, Any], struck: Struck) -> Answer:
        plugin, command = self._plugin(wanted["pluginId"]), wanted["commandType"]
        if command in plugin.unsupported:
            raise _Refusal(400, {"error": f"Plugin {plugin.key} does not support commandType: {command}"})
        relay_id = wanted["device"].get("relayNode", {}).get("id")
        if plugin.needs_relay and relay_id is None:
            raise _Refusal(400, {"error": f"Plugin {plugin.key}: device.relayNode.id is required"})
        message = Message(
            id=self._ulid(),
            command=command,
            priority=int(wanted["priority"]),
            plugin=plugin,
            network_id=wanted["networkId"],
            device=wanted["device"],
            queue=plugin.queue(wanted["networkId"], relay_id),
            created=self.clock.elapsed,
            request_data=wanted.get("requestData"),
            phase=wanted.get("phase", ""),
            correlation_id=wanted.get("correlationId", ""),
            rank=float(wanted["priority"]),
        )
        self.messages[message.id] = message
        self._births.append((message.created, message.id))
        if message.index:
            self._by_index[message.index] = message.id  # hides an older one of the same id (section 3)
        answer = Answer(201, text=_compact(message.body()))
        hold = asyncio.Event() if self.webhook and struck("early-webhook") is not None else None
        if hold is not None:
            self._held[message.id] = hold
        queue = self._queue_of(message)
        is_idle = self._next_of(queue) is None and self._admits(queue)
        self._make_ready(message)
        if is_idle and self._is_engine_on:
            self._distribute(queue)
        if hold is not None:
            await hold.wait()
        return answer

    def _get(self, request: Request, raw: str, struck: Struck) -> Answer:
        self._authenticate(request, struck)
        try:
            if re.search(r"%(?![0-9A-Fa-f]{2})", raw):
                raise ValueError(raw)
            wanted = unquote_to_bytes(raw).decode()
        except ValueError:
            message = f"'{request.path}' is not a valid url component"
            raise _Refusal(400, _framework_error(400, message, "FST_ERR_BAD_URL")) from None
        if len(wanted) > MAX_PARAMETER:  # Choice: the decoded characters are counted
            message = "Request path parameter is too long"
            raise _Refusal(414, _framework_error(414, message, "FST_ERR_MAX_PARAM_LENGTH"))
        if issues := bodies.text(1)(wanted, "correlationId"):
            raise _Refusal(400, bodies.refusal(issues, "path parameters"))
        found = self.messages.get(self._by_index.get(wanted, ""))  # the plain key only (section 4.2)
        if found is None or struck("not-found") is not None:
            raise _Refusal(404, {"error": "Not found"})
        if not all(_is_shown(entry) for entry in found.failures):
            message = "Response doesn't match the schema"
            raise _Refusal(500, _framework_error(500, message, "FST_ERR_RESPONSE_SERIALIZATION"))
        return Answer(200, found.body())

    def _found(self, correlation_id: str) -> list[str]:
        keys = (correlation_id, *(f"{correlation_id}_ph{phase}" for phase in "ABC"))
        return [found for key in keys if (found := self._by_index.get(key)) is not None]

    def _cancel_messages(self, correlation_id: str) -> dict[str, str]:
        found = [self.messages[message_id] for message_id in self._found(correlation_id)]
        waiting = [
            message for message in found
            if message.status in ("QUEUED", "TO_RETRY") and message.plugin.key not in self.disabled
        ]  # fmt: skip
        for message in waiting:
            self._delete(message, "CANCELLED")
            self.totals["CANCELLED"] += 1
        result = "NOT_FOUND" if not found else "CANCELLED" if len(waiting) == len(found) else "NOT_CANCELLABLE"
        return {"correlationId": correlation_id, "result": result}

    # -- tokens (section 5)

    async def _generate(self, wanted: dict[str, Any], struck: Struck) -> Answer:
        plugin = self._plugin(wanted["pluginId"])
        if not plugin.mints:
            raise _Refusal(400, {"error": f"Plugin does not support token generation: {plugin.key}"})
        if plugin.is_stub:
            return Answer(200, {"token": "stub-token"})
        why = f"Plugin {plugin.key} could not generate a token because: "
        await self.clock.sleep(self.config.vendor_s)
        if (status := struck("mint-error")) is not None:
            raise _Refusal(500, _framework_error(500, f"{why}HTTP status {status}", status))
        try:
            if struck("no-token") is not None:
                raise DeliveryError("System busy")
            return Answer(200, {"token": self._mint(plugin, wanted)})
        except DeliveryError as exc:
            raise _Refusal(500, _framework_error(500, why + exc.reason)) from None

    def _mint(self, plugin: Plugin, wanted: dict[str, Any]) -> str:
        device, payload, kind = wanted["device"], wanted.get("payload", {}), wanted["type"]
        if plugin.key == "nxt-sts":
            key = str(device.get("decoderKey", "")).strip()
            if re.fullmatch(r"[0-9A-Fa-f]{16}", key) is None:
                raise DeliveryError("decoderKey must be 16 hexadecimal digits")
            if "T" not in wanted["issueDateString"]:
                raise DeliveryError("issueDateString must be a date-time")
            meter = self.field.by_key(key)
        else:
            meter = self.field.meters.get(device["externalReference"])
        if meter is None:
            raise DeliveryError("No such meter")
        value = Decimal(str(payload.get("kwh", payload.get("powerLimit", 0))))
        if kind == "TOP_UP_KWH" and value <= 0:  # the service checks no lower bound, the vendor does
            raise DeliveryError("Amount error")
        try:
            return meter.issue("TOP_UP" if kind == "TOP_UP_KWH" else kind, value)
        except ConfigError as exc:
            raise DeliveryError(str(exc)) from None

    # -- ingress (section 8)

    def _ingress(self, request: Request, plugin_id: str) -> Answer:
        plugin = self._plugin(plugin_id)
        if plugin.pattern != "push":
            raise _Refusal(400, {"error": f"Plugin does not support PUSH ingress: {plugin.key}"})
        if request.body and _content_type(request) != "application/json":
            raise _media_type()
        try:
            event = bodies.read_json(request.body)
        except ValueError:
            raise _Refusal(400, {"error": "Invalid JSON body"}) from None
        if isinstance(event, dict) and plugin.is_stub:
            self._apply(plugin, event)
        else:  # Choice: events of a real network server are not understood here, its meters are simulated
            self.unhandled[plugin.key] += 1
        return Answer(204, text="")

    def _apply(self, plugin: Plugin, event: Mapping[str, Any]) -> None:
        """A normalised event of a device; hardly anything is checked."""
        if event.get("unsolicited") is True:
            names = ("deliveryStatus", "device", "commandType", "response", "unsolicited")
            self._tell(plugin.key, {name: event[name] for name in names if name in event})
            return
        reference = event.get("deliveryQueueId")
        message = self.messages.get(self._by_reference.get(reference, "") if isinstance(reference, str) else "")
        if message is None:
            self.unhandled[plugin.key] += 1
            return
        context = event.get("failureContext")
        context = context if isinstance(context, dict) else {}
        match event.get("deliveryStatus"):
            case "SENT_TO_DEVICE" if message.stage is Stage.RELAY_NODE:
                self._enter(message, Stage.DEVICE, "SENT_TO_DEVICE", self.config.device_wait_s)
            case "SENT_TO_DEVICE":
                self.claim_misses[Stage.RELAY_NODE] += 1
            case "DELIVERY_SUCCESSFUL":
                self._succeed(message, event.get("response"), event.get("device"), str(context.get("reason", "")))
            case "DELIVERY_FAILED":
                reason, is_final = context.get("reason", "Delivery failed"), context.get("skipRetry") is True
                if message.stage is not Stage.DEVICE and not is_final and message.retry_count < self.config.max_retries:
                    self.claim_misses[Stage.RETRY] += 1  # reported too early to be tried again: dropped (section 6.2)
                    return
                self._fail(
                    message,
                    DeliveryError(
                        reason, code=context.get("errorCode"), details=context.get("details"), is_final=is_final
                    ),
                )
            case _:
                self.unhandled[plugin.key] += 1

    # -- the engine (section 6)

    @property
    def _is_engine_on(self) -> bool:
        return not self._is_down and self.faults.value("engine-off") is None

    async def _run(self) -> None:
        while True:
            await self.clock.sleep(self.config.tick_s)
            if not self._is_down:
                self._tick()

    def _tick(self) -> None:
        now = self.clock.elapsed
        while self._delayed and self._delayed[0][0] <= now + EPS:
            self._outbox.append(heapq.heappop(self._delayed)[2])
        while self._births and self._births[0][0] + self.config.message_ttl_s <= now + EPS:
            message = self.messages.get(self._births.popleft()[1])
            if message is not None:
                self._delete(message, "EXPIRED")
        if self._is_engine_on:
            for stage in (Stage.NS, Stage.RELAY_NODE, Stage.DEVICE, Stage.TASK, Stage.RETRY):
                for message in self._take_due(stage, now):
                    self._wait_is_over(message)
            for queue in list(self._queues.values()):
                self._distribute(queue)
        self._notify()

    def _take_due(self, stage: Stage, now: float) -> list[Message]:
        heap = self._due[stage]
        found: list[Message] = []
        while heap and heap[0][0] <= now + EPS and len(found) < PER_TICK:
            _, message_id, entry = heapq.heappop(heap)
            message = self.messages.get(message_id)
            if message is not None and message.entry == entry and message.plugin.key not in self.disabled:
                found.append(message)
        return found

    def _wait_is_over(self, message: Message) -> None:
        """Section 6.2, last column."""
        match message.stage:
            case Stage.NS if message.id in self._sending:
                self._enter(message, Stage.NS, message.status, self.config.ns_wait_s)
            case Stage.NS:
                self._fail(message, DeliveryError("The hand-over to the network server timed out"))
            case Stage.RELAY_NODE if self._is_still_there(message):
                self._enter(message, Stage.RELAY_NODE, message.status, self.config.relay_wait_s)
            case Stage.RELAY_NODE:
                self._fail(message, DeliveryError("The network server no longer has the message"))
            case Stage.DEVICE:
                self._fail(message, DeliveryError("The device did not answer in time"))
            case Stage.TASK:
                self._poll(message)
            case _:
                self._make_ready(message)

    def _is_still_there(self, message: Message) -> bool:
        return (message.plugin.is_stub and not self.config.is_auto) or message.reference in self._network

    def _enter(self, message: Message, stage: Stage, status: str, wait_s: float | None = None) -> None:
        is_new = message.status != status or stage is not message.stage or not message.entry
        message.stage, message.status = stage, status
        message.entry += 1
        if wait_s is not None:
            heapq.heappush(self._due[stage], (self.clock.elapsed + wait_s, message.id, message.entry))
        if is_new:
            self._step(message, status)

    def _step(self, message: Message, status: str) -> None:
        self.steps.append(Step(self.clock.elapsed, message.id, message.correlation_id, status))
        self._notify()

    def _queue_of(self, message: Message) -> _Queue:
        return self._queues.setdefault(message.queue, _Queue(plugin=message.plugin))

    def _make_ready(self, message: Message) -> None:
        self._enter(message, Stage.READY, "QUEUED")
        heapq.heappush(self._queue_of(message).heap, (-message.rank, message.id, message.entry))
        message.rank = float(message.priority)  # a fraction counts the first time only (section 3)

    def _next_of(self, queue: _Queue) -> Message | None:
        """The message that is first in line."""
        while queue.heap:
            _, message_id, entry = queue.heap[0]
            message = self.messages.get(message_id)
            if message is not None and message.entry == entry:
                return message
            heapq.heappop(queue.heap)
        return None

    def _admits(self, queue: _Queue) -> bool:
        if queue.plugin.key in self.disabled:
            return False
        if queue.plugin.pattern == "push":
            return self.clock.elapsed + EPS >= queue.free_at
        return len(queue.running) < self.config.in_flight

    def _distribute(self, queue: _Queue) -> None:
        while (message := self._next_of(queue)) is not None and self._admits(queue):
            heapq.heappop(queue.heap)
            if queue.plugin.pattern == "push":
                queue.free_at = self.clock.elapsed + self.config.spacing_s
            else:
                queue.running.add(message.id)
            self._enter(message, Stage.NS, "SENT_TO_NS", self.config.ns_wait_s)
            if not message.was_told:  # once per message, before the call (section 7)
                message.was_told = True
                self._tell_about(message)
            self._sending.add(message.id)
            self._spawn(self._hand_over(message, self.restarts), f"send:{message.id}")

    async def _hand_over(self, message: Message, life: int) -> None:
        error: DeliveryError | None = None
        reference = ""
        try:
            reference = await self._send(message)
        except DeliveryError as exc:
            error = exc
        if life != self.restarts:  # the process that waited for it is dead
            return
        self._sending.discard(message.id)
        if self.messages.get(message.id) is not message:  # its 7 days were over
            return
        if error is not None:
            self._fail(message, error)
            return
        message.reference = reference
        self._by_reference[reference] = message.id
        is_pull = message.plugin.pattern == "pull"
        wait_s = self.config.initial_poll_s if is_pull else self.config.relay_wait_s
        self._enter(message, Stage.TASK if is_pull else Stage.RELAY_NODE, "DELIVERED_TO_NS", wait_s)
        if self._strike(message, "vanish") is not None:
            self._delete(message, "EXPIRED")

    def _fail(self, message: Message, error: DeliveryError) -> None:
        """Section 6.3: try again later, or give up."""
        is_final = error.is_final or message.retry_count >= self.config.max_retries
        parts = {"errorCode": error.code, "details": error.details, "isFinal": is_final or None}
        failure = {"timestamp": self._stamp(), "status": message.status, "reason": error.reason}
        message.failures.insert(0, failure | {name: part for name, part in parts.items() if part is not None})
        if is_final:
            self._finish(message, "DELIVERY_FAILED")
            return
        step = self.config.retry_base_s * self.config.retry_multiplier ** min(message.retry_count, 60)
        delay_s = min(step, self.config.retry_max_s) * self._random.uniform(1.0, 1.5)
        message.retry_count += 1
        self._by_reference.pop(message.reference, None)
        message.reference = ""
        self._queue_of(message).running.discard(message.id)
        self._enter(message, Stage.RETRY, "TO_RETRY", delay_s)

    def _succeed(self, message: Message, response: object, device: object = None, reason: str = "") -> None:
        if reason:
            failure = {"timestamp": self._stamp(), "status": "DELIVERY_SUCCESSFUL", "reason": reason, "isFinal": True}
            message.failures.insert(0, failure)
        self._finish(message, "DELIVERY_SUCCESSFUL", response, device)

    def _finish(self, message: Message, status: str, response: object = None, device: object = None) -> None:
        self.totals[status] += 1
        self._retry_counts[message.retry_count] += 1
        message.status = status
        self._tell_about(message, response, device)
        if (again := self._strike(message, "final-again")) is not None:
            if again == "failed":
                message.status, response = "DELIVERY_FAILED", None
            self._tell_about(message, response, device)
        self._delete(message, status)

    def _delete(self, message: Message, status: str) -> None:
        """There is no history (section 1)."""
        del self.messages[message.id]
        self._by_reference.pop(message.reference, None)
        self._by_index.pop(message.index, None)  # also where it points at a newer one of the same id (recorded)
        self._queue_of(message).running.discard(message.id)
        self._step(message, status)

    # -- behind the plugins

    def _strike(self, message: Message, name: str) -> str | None:
        """The fault, if it strikes this message."""
        where = (message.serial, message.command, message.plugin.key, message.correlation_id)
        return self.faults.take(name, *filter(None, where))

    def _meter(self, message: Message) -> CalinMeter:
        meter = self.field.meters.get(message.serial)
        if meter is None and message.plugin.is_stub and re.fullmatch(r"[0-9]{11}", message.serial):
            meter = self.field.add(CalinMeterConfig(serial=message.serial, phases=3, seed=self.config.seed))
        if meter is None:  # section 3: accepted, and failed at once for good
            raise DeliveryError("No such meter", is_final=True)
        return meter

    async def _send(self, message: Message) -> str:
        """Hand a message to the network server or the vendor: its queue id there. Raises DeliveryError."""
        plugin = message.plugin
        slow = self._strike(message, "ns-slow")
        if not plugin.is_stub:
            check_command(plugin, message.command, message.request_data or {})
        takes_s = self.config.vendor_s if plugin.wire in ("v1", "v2") and not plugin.is_stub else self.config.ns_s
        await self.clock.sleep(takes_s if slow is None else float(slow))
        if (status := self._strike(message, "ns-error")) is not None:
            raise DeliveryError("The vendor did not take the command", code=int(status), details="fault on demand")
        if self._strike(message, "ns-permanent") is not None:
            raise DeliveryError("The vendor refused the command", code=99, is_final=True)
        if plugin.is_stub and not self.config.is_auto:
            return f"stub-ext-{self._ulid()}"
        meter = self._meter(message)
        if plugin.pattern == "pull":
            return self._create_task(message, meter)
        reference = f"stub-ext-{self._ulid()}" if plugin.is_stub else str(uuid.UUID(int=self._random.getrandbits(128)))
        if self._strike(message, "queue-forgets") is None:
            self._network.add(reference)
            self._spawn(self._over_the_air(message, meter, reference), f"air:{reference}")
        return reference

    def _from_network(self, message: Message, meter: CalinMeter, reference: str, **event: Any) -> None:
        """An event of the network server; nobody keeps it while the service is away."""
        if not self._is_down:
            device = {"type": "ELECTRICITY_METER", "externalReference": meter.serial, **self._relay_node()}
            self._apply(message.plugin, {"deliveryQueueId": reference, "device": device, **event})

    def _relay_node(self) -> Data:
        """The gateway that heard an answer; a value of 0 is left out, as ChirpStack does."""
        parts = {"snr": self._random.randrange(-8, 41) / 4, "rssi": -60 - self._random.randrange(50)}
        node = {"externalReference": self._random.choice(GATEWAYS)}
        return {"relayNode": node | {name: int(v) if v == int(v) else v for name, v in parts.items() if v}}

    async def _over_the_air(self, message: Message, meter: CalinMeter, reference: str) -> None:
        """A command's way to a LoRaWAN meter and back."""

        def struck(name: str) -> str | None:
            found = self._strike(message, name)
            return meter.struck(name) if found is None else found

        await self.clock.sleep(self.config.downlink_s)
        self._network.discard(reference)
        if self._strike(message, "no-txack") is None:
            self._from_network(message, meter, reference, deliveryStatus="SENT_TO_DEVICE")
        await self.clock.sleep(self.config.uplink_s)
        if meter.is_dark or struck("silence") is not None:
            return
        if self._strike(message, "nack") is not None:
            context = {"reason": "The device did not acknowledge the downlink"}
            self._from_network(message, meter, reference, deliveryStatus="DELIVERY_FAILED", failureContext=context)
            return
        result = self._execute(message, meter, struck)
        if struck("mute") is not None:
            return
        if (late := struck("late")) is not None:
            await self.clock.sleep(float(late))
        if struck("wrong-checksum") is not None or struck("garbage") is not None:
            self.unhandled[message.plugin.key] += 1
            return
        extra = {"failureContext": {"reason": result.reason}} if result.reason else {}
        event = {"deliveryStatus": "DELIVERY_SUCCESSFUL", "response": result.response, **extra}
        self._from_network(message, meter, reference, **event)

    def _execute(self, message: Message, meter: CalinMeter, struck: Struck) -> Result:
        result = execute(message.plugin, meter, message.command, message.phase, message.request_data or {}, struck)
        self._notify()
        if result.data is None or self._strike(message, "null-values") is None:
            return result
        blank = {name: value if isinstance(value, bool) else None for name, value in result.data.items()}
        return replace(result, data=blank)

    def _create_task(self, message: Message, meter: CalinMeter) -> str:
        token = str((message.request_data or {}).get("token", ""))
        if message.plugin.wire == "v1" and token and (meter.serial, token) in self._used:
            # the real plugin's reason holds the token too (section 13)
            reason = f"CALIN V1 refused token {token}: Token has been used"
            raise DeliveryError(reason, code=99, is_final=True)
        number = str(self._next_task)
        self._next_task += 1
        task = self._tasks_at_vendor[number] = _Task()
        self._spawn(self._run_task(task, message, meter, token), f"task:{number}")
        return number

    async def _run_task(self, task: _Task, message: Message, meter: CalinMeter, token: str) -> None:
        """A task's way to a meter behind a concentrator and back."""

        def struck(name: str) -> str | None:
            found = self._strike(message, name)
            return meter.struck(name) if found is None else found

        await self.clock.sleep(self.config.execute_s)
        await self.wait_until(lambda: not meter.is_dark)
        if struck("silence") is not None:  # pending for ever
            return
        result = self._execute(message, meter, struck)
        if token and result.is_done:
            self._used.add((meter.serial, token))
        if struck("mute") is not None:
            return
        if (late := struck("late")) is not None:
            await self.clock.sleep(float(late))
        if struck("wrong-checksum") is not None or struck("garbage") is not None:
            result = Result(False, None, NOT_EXECUTED)
        if token and not result.is_done and message.plugin.wire == "v1":  # calin-api.md 4.2, case 2
            reason = f"CALIN V1 refused token {token}: Token has been used"
            task.outcome = DeliveryError(reason, code=99, is_final=True)
        else:
            task.outcome = result
        self._notify()

    def _poll(self, message: Message) -> None:
        """Ask for the task (section 6.2, ``awaitingTask``)."""
        age = self.clock.elapsed - message.created
        if age >= self.config.give_up_s:
            self._fail(message, DeliveryError("The task did not finish in time", is_final=True))
            return
        if self._strike(message, "poll-error") is not None:
            self._fail(message, DeliveryError("The status check failed", code=500))
            return
        task = self._tasks_at_vendor.get(message.reference)
        outcome = task.outcome if task is not None else None
        if outcome is not None:
            del self._tasks_at_vendor[message.reference]
        if isinstance(outcome, DeliveryError):
            self._fail(message, outcome)
        elif outcome is not None:
            self._succeed(message, outcome.response, reason=outcome.reason)
        else:
            wait_s = 10.0 if age < 20 else 15.0 if age < 50 else 20.0 if age < 90 else 30.0
            self._enter(message, Stage.TASK, message.status, wait_s)

    # -- webhooks (section 7)

    def _tell_about(self, message: Message, response: object = None, device: object = None) -> None:
        body: dict[str, Any] = {
            "deliveryStatus": message.status,
            "device": message.device if device is None else device,
            "id": message.id,
            "correlationId": message.correlation_id or None,
            "commandType": message.command,
            "phase": message.phase or None,
            "response": response,
            "failureHistory": message.failures,
        }
        body = {name: value for name, value in body.items() if value is not None}
        self._tell(message.plugin.key, body, message.id, message.serial)

    def _tell_unsolicited(self, plugin_id: str, command: str, meter: CalinMeter, data: Data) -> None:
        if self._is_down:
            return
        body = {
            "deliveryStatus": "DELIVERY_SUCCESSFUL",
            "device": {"type": "ELECTRICITY_METER", "externalReference": meter.serial, **self._relay_node()},
            "commandType": command,
            "response": {"data": data, "status": "EXECUTION_SUCCESS"},
            "unsolicited": True,
        }
        self._tell(plugin_id, body, serial=meter.serial)

    def _tell(self, plugin_id: str, message: Data, message_id: str = "", serial: str = "") -> None:
        """Queue a webhook, with the faults that strike it."""
        if not self.webhook:
            return
        status = message.get("deliveryStatus")
        named = (serial, status, message.get("commandType"), plugin_id, message.get("correlationId"))
        where = tuple(name for name in named if isinstance(name, str) and name)

        def event(body: Data, *, is_forged: bool = False, **extra: Any) -> _Event:
            event_id = self._ulid()
            whole = {"eventId": event_id, "occurredAt": self._stamp(), "pluginId": plugin_id, "message": body} | extra
            return _Event(
                id=event_id, body=_compact(whole).encode(), subjects=where, message_id=message_id, is_forged=is_forged
            )

        if self.faults.take("forged", *where) is not None:
            is_success = status == "DELIVERY_SUCCESSFUL"
            lie = message | {"deliveryStatus": "DELIVERY_FAILED" if is_success else "DELIVERY_SUCCESSFUL"}
            response = {"status": "EXECUTION_SUCCESS", "data": {"kwhCreditAvailable": 9999}}
            lie = (
                {name: value for name, value in lie.items() if name != "response"}
                if is_success
                else (lie | {"response": response})
            )
            self._outbox.append(event(lie, is_forged=True))
        if self.faults.take("webhook-odd", *where) is not None:
            self._outbox.append(event(message | {"deliveryStatus": "SENT_TO_MOON"}))
            ours = event(message | {"weather": {"isRaining": False}}, schemaHint=2)
        else:
            ours = event(message)
        share = self.faults.take("webhook-lost", *where)
        if share is not None and self._random.random() * 100 < float(share):
            self._bury(ours)
            return
        copies = 2 if self.faults.take("webhook-twice", *where) is not None else 1
        late, reorder = self.faults.take("webhook-late", *where), self.faults.take("webhook-reorder", *where)
        for _ in range(copies):
            wait_s = float(late or 0) + self._random.uniform(0, float(reorder or 0))
            copy = replace(ours)
            if wait_s:
                self._delay(copy, wait_s)
            else:
                self._outbox.append(copy)
        self._notify()

    def _delay(self, event: _Event, wait_s: float) -> None:
        self._delay_number += 1
        heapq.heappush(self._delayed, (self.clock.elapsed + wait_s, self._delay_number, event))

    def _bury(self, event: _Event) -> None:
        self.webhook_totals["dlq"] += 1
        self.dead_letters.append(event.body)
        self._release(event)
        self._notify()

    def _release(self, event: _Event) -> None:
        """Let an enqueue that waits for its webhook answer."""
        if (hold := self._held.pop(event.message_id, None)) is not None:
            hold.set()

    async def _post_for_ever(self) -> None:
        """One at a time, so that a slow receiver delays all others."""
        while True:
            await self.wait_until(lambda: bool(self._outbox) and not self._is_down)
            event, life = self._outbox[0], self.restarts
            status = await self._post(event)
            self.posted.append(Posted(self.clock.elapsed, event.body, status))
            if life != self.restarts:  # died before it was noted: posted again, if the store was kept
                continue
            self._outbox.popleft()
            self._release(event)
            event.attempts += 1
            if 200 <= status < 300:
                self.webhook_totals["posted"] += 1
            elif event.is_forged or event.attempts >= self.config.webhook_attempts or not _may_repeat(status):
                self._bury(event)
            else:
                self.webhook_totals["retried"] += 1
                gap = self.config.webhook_base_s * self.config.webhook_multiplier ** (event.attempts - 1)
                self._delay(event, min(gap, self.config.webhook_max_s))
            self._notify()

    async def _post(self, event: _Event) -> int:
        """Status of the receiver, 0 when it cannot be reached."""
        assert self._client is not None, "the simulator is not running"
        headers = {"content-type": "application/json", EVENT_ID: event.id}
        secret = self.config.webhook_secret
        if event.is_forged or self.faults.take("bad-signature", *event.subjects) is not None:
            secret = "not-the-secret"
        if secret and self.faults.take("no-signature", *event.subjects) is None:
            headers[SIGNATURE] = sign(secret, event.body)
        try:
            reply = await self._client.post(self.webhook, content=event.body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0
        return 0 if self.faults.take("webhook-answer-lost", *event.subjects) is not None else reply.status_code

    # -- metrics (section 11)

    def _metrics(self) -> Iterator[str]:
        def labelled(name: str, label: str, values: Mapping[str, int]) -> Iterator[str]:
            yield f"# TYPE {name} counter"
            yield from (f'{name}{{{label}="{key}"}} {value}' for key, value in values.items())

        yield "# TYPE device_messaging_up gauge"
        yield "device_messaging_up 1"
        finals = ("DELIVERY_SUCCESSFUL", "DELIVERY_FAILED", "CANCELLED")
        yield from labelled("device_messaging_messages_total", "status", {key: self.totals[key] for key in finals})
        yield "# TYPE device_messaging_retry_count histogram"
        for bound in RETRY_BUCKETS:
            below = sum(number for retries, number in self._retry_counts.items() if retries <= bound)
            yield f'device_messaging_retry_count_bucket{{le="{bound}"}} {below}'
        yield f'device_messaging_retry_count_bucket{{le="+Inf"}} {self._retry_counts.total()}'
        yield f"device_messaging_retry_count_sum {sum(n * times for n, times in self._retry_counts.items())}"
        yield f"device_messaging_retry_count_count {self._retry_counts.total()}"
        results = {key: self.webhook_totals[key] for key in ("posted", "retried", "dlq")}
        yield from labelled("device_messaging_webhook_events_total", "result", results)
        yield from labelled("device_messaging_ingress_unhandled_total", "pluginId", self.unhandled)
        yield from labelled("device_messaging_stage_claim_misses_total", "stage", self.claim_misses)
        yield "# TYPE device_messaging_queue_depth gauge"
        for name, depth in self.depths().items():
            yield f'device_messaging_queue_depth{{queue="{name}"}} {depth}'

    def depths(self) -> dict[str, int]:
        """Messages per queue of the engine, by the service's names."""
        names = {
            Stage.NS: "queue_in_flight_to_ns",
            Stage.RELAY_NODE: "queue_in_flight_to_relay_node",
            Stage.DEVICE: "queue_in_flight_to_device",
            Stage.RETRY: "queue_awaiting_retry",
        }
        found = dict.fromkeys(names.values(), 0)
        found |= {f"queue_awaiting_task:{key}": 0 for key in self.config.plugins if PLUGINS[key].pattern == "pull"}
        found |= dict.fromkeys(self._queues, 0)
        for message in self.messages.values():
            in_task = f"queue_awaiting_task:{message.plugin.key}" if message.stage is Stage.TASK else message.queue
            found[names.get(message.stage, in_task)] += 1
        return found | {"webhook:pending": len(self._outbox) + len(self._delayed)}


def _is_shown(failure: Mapping[str, Any]) -> bool:
    """Whether an entry of a history fits the schema of an answer; what ingress said is stored unchecked."""
    is_text = all(isinstance(failure.get(name, ""), str) for name in ("reason", "details"))
    return is_text and isinstance(failure.get("errorCode", ""), (str, int, Decimal))


def _may_repeat(status: int) -> bool:
    """Section 7.2: what a webhook is posted again for."""
    return not status or status in (408, 429) or status >= 500


def sign(secret: str, body: bytes) -> str:
    """Section 7.1."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _media_type() -> _Refusal:
    return _Refusal(415, _framework_error(415, "Unsupported Media Type", "FST_ERR_CTP_INVALID_MEDIA_TYPE"))


def _openapi() -> dict[str, Any]:
    """Section 10: no security scheme, few errors."""
    paths = {
        "/message/enqueue": ("post", "201"),
        "/message/{correlationId}": ("get", "200"),
        "/message/cancel": ("post", "200"),
        "/messages/cancel": ("post", "200"),
        "/token/generate": ("post", "200"),
        "/ingress/{pluginId}": ("post", "204"),
        "/healthz": ("get", "200"),
    }
    event = {"$ref": "#/components/schemas/WebhookEvent"}
    content = {"application/json": {"schema": event}}
    done = {"responses": {"200": {"description": "OK"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "NXT Device Messaging", "version": "0.1.1"},
        "paths": {
            path: {method: {"responses": {status: {"description": "OK"}}}} for path, (method, status) in paths.items()
        },
        "webhooks": {"deliveryEvent": {"post": {"requestBody": {"content": content}, **done}}},
        "components": {"schemas": {"WebhookEvent": {"type": "object"}}},
    }


OPENAPI: Final = _openapi()
SWAGGER_PAGE: Final = (
    "<!DOCTYPE html><html><head><title>NXT Device Messaging</title></head>"
    '<body><a href="/v3/api-docs">OpenAPI</a></body></html>'
)

# --------------------------------------------------------------------------------------------------------- command line


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run the service and its meters until cancelled; see ``catalog.ServeFunction``.

    Known ``extra`` names: meters (a count), webhook (an address), webhook_secret (without one it is made up when there
    is a webhook), api_key, plugins (separated by commas), auto (yes or no: the stub plugins answer like meters),
    control (yes or no), max_retries (a number), time_scale, report_every_s, retry_base_s, ns_wait_s, relay_wait_s,
    device_wait_s, initial_poll_s, vendor_s, execute_s, downlink_s, uplink_s (numbers).
    """
    waits = (
        "report_every_s", "retry_base_s", "ns_wait_s", "relay_wait_s", "device_wait_s", "initial_poll_s", "vendor_s",
        "execute_s", "downlink_s", "uplink_s",
    )  # fmt: skip
    found = read_extra(
        options.extra,
        {
            "meters": count,
            "webhook": str,
            "webhook_secret": str,
            "api_key": str,
            "plugins": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
            "auto": yes,
            "control": yes,
            "max_retries": count,
            "time_scale": seconds,
            **dict.fromkeys(waits, seconds),
        },
    )
    clock = SimClock(time_scale=found.pop("time_scale", 1.0))
    meters = demo_field(found.pop("meters", 4), clock=clock, seed=options.seed)
    if found.get("webhook") and not found.get("webhook_secret"):
        found["webhook_secret"] = secrets.token_urlsafe(16)
    config = replace(
        MessagingConfig(port=options.port, faults=options.faults, seed=options.seed, is_auto=found.pop("auto", False)),
        **found,
    )
    async with DeviceMessagingSimulator(meters, config) as sim:
        announce(
            {
                "sim": sim.name,
                "host": sim.host,
                "port": sim.port,
                "url": sim.url,
                "api_key": config.api_key,
                "webhook_secret": config.webhook_secret,
                "plugins": list(config.plugins),
                "meters": list(meters.meters),
                "concentrators": sorted({meter.config.concentrator for meter in meters.meters.values()}),
            }
        )
        await asyncio.get_running_loop().create_future()
