"""CALIN meters over LoRaWAN and ChirpStack v4 (specs/calin-lorawan.md; section numbers below are its own).

Commands leave by the network server's REST interface and are answered by its events, which come as webhooks, over MQTT,
or both. One instance serves all meters and gateways of one connection; one pairing table joins the halves of answers.
Every command here may be sent again: a read changes nothing, relay and clock are set to the same value, and a meter
refuses a token it has had (command-flow 1.5, 4.6).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets as random_numbers
import ssl
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from app.adapters import _calin_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._live import beside
from app.errors import ConfigError, LinkError, LocalProtocolError, ParameterError, RemoteProtocolError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Resend, Risk
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame
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
    LateOrPushed,
    Limits,
    LinkChange,
    Reach,
    Refused,
    Report,
    Tap,
    Telemetry,
    Transmitted,
    Uplink,
)
from app.protocols import calin_api as sts
from app.protocols import calin_lorawan as lora
from app.transports.chirpstack_grpc import GrpcCaller, is_grpc
from app.transports.mqtt_link import MqttLink
from app.transports.tls_trust import client_context
from app.transports.webhook import WebCaller, WebhookEvent, WebhookListener

_log = logging.getLogger(__name__)

SPACING_S: Final = 2.0  # LORAWAN_SPACING
ACCEPT_S: Final = 10.0  # D-13
STAGE_S: Final = 900.0  # GW_TIMEOUT, renewable
DEVICE_S: Final = 12.0  # DEVICE_TIMEOUT
UNREACHABLE_S: Final = 24 * 3600.0  # LORAWAN_ABORT_AFTER
FRESH_S: Final = 59 * 60.0  # LORAWAN_COMMISSIONING_FRESH
MAX_IN_FLIGHT: Final = 1000  # the network server queues them; the spacing is the limit
MAX_UPLINKS: Final = 5000  # ours: what waits for the pipeline
MAX_SEEN: Final = 4096  # ours: events remembered, so that webhook and MQTT may bring the same one
MAX_REFS: Final = 4096  # ours: references whose command and tap are remembered
MAX_STRANGERS: Final = 256  # ours: unknown meters that are told once
GATEWAY_POLL_S: Final = 60.0
GATEWAY_PAGE: Final = 100
GATEWAY_PAGES: Final = 10
NUMBER_OF_GATEWAY_ONLINE: Final = 1  # section 5.4
PASSING_CODES: Final = frozenset({None, 4, 8, 13, 14})  # gRPC: may be gone the next time


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times that nobody sets by hand; tests and simulators shorten them."""

    gateway_poll_s: float = GATEWAY_POLL_S
    call_s: float = ACCEPT_S


# ---------------------------------------------------------------- the connection form


def _text(name: str, title: str, description: str = "", *, default: str = "", max_bytes: int = 253) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, required=False, default=default, help=description, max_bytes=max_bytes
    )  # fmt: skip


def _secret(name: str, title: str, description: str = "", *, required: bool = False) -> ParamSpec:
    return ParamSpec(
        name=name,
        title=title,
        type=ParamType.SECRET,
        required=required,
        default=None if required else "",
        help=description,
        max_bytes=4096,
    )


def _port(name: str, title: str, default: int, low: int = 1, description: str = "") -> ParamSpec:
    return ParamSpec(
        name=name,
        title=title,
        type=ParamType.INTEGER,
        required=False,
        default=default,
        minimum=low,
        maximum=65535,
        help=description,
    )


UUID: Final = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

FORM: Final[tuple[ParamSpec, ...]] = (
    ParamSpec(
        name="api_url", title="Network server", pattern=r"(?:https?|grpcs?)://[^\s?#@]+", max_bytes=500,
        help="Address of ChirpStack's REST interface, for example http://127.0.0.1:8090, or of ChirpStack itself, "
             "for example grpc://127.0.0.1:8080 or grpcs:// with TLS (needs the extra chirpstack).",
    ),
    _secret("api_token", "API token", "Made in ChirpStack under API keys.", required=True),
    ParamSpec(
        name="ca_certificate", title="Trusted certificate", type=ParamType.PEM, required=False, default="",
        help="For a server of one's own with TLS; empty: the usual authorities. Also used for MQTT.",
    ),
    ParamSpec(
        name="application_id", title="Application", required=False, default="", pattern=UUID,
        help="UUID; needed for MQTT and for registering meters.",
    ),
    ParamSpec(
        name="device_profile_id", title="Device profile", required=False, default="", pattern=UUID,
        help="UUID; needed for registering meters.",
    ),
    ParamSpec(
        name="tenant_id", title="Tenant", required=False, default="", pattern=UUID,
        help="UUID; needed for the gateways' state when the API token belongs to a tenant.",
    ),
    _secret("application_key", "Application key", "32 hex digits, given to meters that are registered from here."),
    _text("webhook_host", "Listen on", "Address of this computer for the server's events; 127.0.0.1: only from here.",
          default="127.0.0.1"),
    _port("webhook_port", "Listen on port", 0, 0, "0: no webhook; events then come over MQTT."),
    _secret("webhook_token", "Webhook token",
            "ChirpStack sends it as header Authorization: Bearer, or X-Meterwright-Token."),
    _text("mqtt_host", "MQTT broker", "Empty: no MQTT; events then come as webhooks."),
    _port("mqtt_port", "MQTT port", 1883),
    _text("mqtt_user", "MQTT user"),
    _secret("mqtt_password", "MQTT password"),
    ParamSpec(name="mqtt_tls", title="MQTT with TLS", type=ParamType.BOOLEAN, required=False, default=False),
    ParamSpec(
        name="relay_bit", title="Relay flag of a report", type=ParamType.CHOICE, required=False,
        default=lora.RelayBit.SET_MEANS_OFF.value,
        choices=((lora.RelayBit.SET_MEANS_OFF.value, "Set means off"),
                 (lora.RelayBit.SET_MEANS_ON.value, "Set means on"),
                 (lora.RelayBit.IGNORED.value, "Do not use it")),
        help="Unverified on hardware; on and off from a credit read are safe either way.",
    ),
    _text("sts_url", "Token service", "Address of the service that makes tokens; empty: none are made here.",
          max_bytes=500),
)  # fmt: skip


# ---------------------------------------------------------------- commands

REGISTER: Final = CommandSpec(
    name="REGISTER",
    title="Register at the network server",
    kind=CommandKind.WRITE,
    risk=Risk.WRITE,
    resend=Resend.SAFE,  # a device that exists stays as it is
    reaches_device=False,
    verb="Register {device}",
    params=(
        ParamSpec(
            name="application_key", title="Application key", type=ParamType.SECRET, required=False, default="",
            pattern=r"[0-9A-Fa-f]{32}", help="32 hex digits; empty: the one of the connection.",
        ),
    ),
    help="Makes the meter known to ChirpStack and gives it its key. A meter that is known already stays as it is.",
)  # fmt: skip
COMMANDS: Final = (*rules.LORAWAN, REGISTER)
NOT_FOR_GATEWAYS: Final = "This is a gateway; only its state is watched."
ANSWER: Final = "answer of the meter"  # note of the frame that a command was answered by


# ---------------------------------------------------------------- the static side


class CalinLorawan:
    """AdapterType of CALIN meters behind ChirpStack."""

    key = "calin-lorawan"
    title = "CALIN over LoRaWAN"
    summary = "Prepaid AC meters behind ChirpStack v4: commands by REST or gRPC, answers by webhook or MQTT."

    def __init__(self, *, pace: Pace | None = None) -> None:
        self._pace = pace if pace is not None else Pace()

    def form(self) -> tuple[ParamSpec, ...]:
        return FORM

    def attribute_form(self, kind: NodeKind) -> tuple[ParamSpec, ...]:
        return rules.attribute_form(kind)

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """Section 8 and command-flow 0.3, 4.5 and 4.6."""
        return Limits(
            reach=Reach.GRID,
            unreachable_after_s=UNREACHABLE_S,
            fresh_s=FRESH_S,
            max_in_flight=MAX_IN_FLIGHT,
            spacing_s=SPACING_S,
            accept_timeout_s=ACCEPT_S,
            stage_timeout_s=STAGE_S,
            stage_code="GW_TIMEOUT",
            renewable=True,
            device_timeout_s=DEVICE_S,
            retry=rules.RETRY,
        )

    def lane(self, device: Device) -> str:
        """The radio of one grid is the bottleneck."""
        return device.parent or device.id

    def connection(self, device: Device) -> str:
        """What one network server and one way of its events share; no secret stands in it."""
        given = device.settings
        names = ("api_url", "application_id", "webhook_host", "webhook_port", "mqtt_host", "mqtt_port", "mqtt_user")
        return "|".join(str(given.get(name, "")).strip().rstrip("/") for name in names)

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return COMMANDS if device.kind is NodeKind.METER else ()

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        if device.kind is NodeKind.METER:
            return lora.UNSUPPORTED
        return {spec.name: NOT_FOR_GATEWAYS for spec in COMMANDS}

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        if device.kind is not NodeKind.METER:
            return ()
        shown = (rules.CREDIT, rules.CONSUMPTION, rules.VOLTAGE, rules.CURRENT, rules.POWER)
        return tuple(quantity.name for quantity in shown)

    def create(self, context: AdapterContext) -> Adapter:
        return LorawanAdapter(context, pace=self._pace)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Ask for the gateways; nothing is written and nothing is listened for."""
        adapter = LorawanAdapter(context, pace=self._pace)
        try:
            found = await adapter.list_gateways(context.tap)
        except RemoteProtocolError as exc:
            raise LocalProtocolError(f"The network server was reached and refused the question: {exc}") from exc
        finally:
            await adapter.close()
        online = sum(1 for gateway in found if gateway.online)
        ways = [way for way, used in adapter.ways().items() if used]
        lines = [f"The network server answers and knows {len(found)} gateways, {online} of them online."]
        lines.append(f"Answers of meters will come by {' and '.join(ways)}." if ways else NO_WAY)
        return lines

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """The payloads of the meter's answers; of REGISTER whether the meter was new. See ``Rereader``.

        None where no answer stands with the command: one that came after a restart of the program is shown with the
        link. Of a registration over gRPC, which shows no status of HTTP.
        """
        if spec.name == REGISTER.name:
            made = [one for one in rereading.http_exchanges(frames) if one.path.endswith("/api/devices")]
            return Answer(result={"was_new": lora.judge_created(made[-1].status, made[-1].body)}) if made else None
        command = lora.command_of(spec.name)
        answers = rereading.incoming(frames, note=ANSWER)
        if not answers:
            return None
        results: list[Mapping[str, Any]] = []
        why = RemoteProtocolError("no answer of the meter says that it was carried out.")
        for frame in answers:
            try:
                reply = lora.decode(frame.data)
            except RemoteProtocolError as exc:
                why = exc
                continue
            found = _result(reply)
            if reply.failure is None and reply.answers(command, found.get("phase")):
                results.append(found)
        spec = next((one for one in COMMANDS if one.name == spec.name), spec)  # of a meter that moved away
        result = rules.one_result(spec, results)
        if result:
            return Answer(result=result)
        rereading.expect_success(answers, str(why))
        return None


NOT_REST: Final = (
    "The answer to the message is no JSON, as from a proxy instead of ChirpStack's REST interface. Check the address."
)
REFUSALS: Final[Mapping[str, str]] = {
    "no_token": "without a token",
    "wrong_token": "with a wrong token",
    "bad_json": "that are no JSON",
    "too_large": "of more than 1 MiB",
    "too_fast": "too many in one second",
    "not_taken": "while too many waited here",
    "slow": "that came too slowly",
    "not_post": "by another method than POST",
    "bad_http": "that are no HTTP",
    "evicted": "on connections that made room for others",
    "crowded": "on connections too many",
}  # why the listener refuses, by its counts
REFUSAL_HELP: Final = "Compare the header of ChirpStack's HTTP integration with the webhook token of this connection."
NO_WAY: Final = "No answer can come: fill in the webhook's port or the MQTT broker."


# ---------------------------------------------------------------- the live side


@dataclass(frozen=True, slots=True)
class GatewayState:
    """One row of the network server's list. ``seen`` as it was written there."""

    gateway_id: str
    online: bool
    seen: str = ""


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a reference belongs to, as long as this connection lives."""

    command: lora.Command
    phase: str
    tap: Tap
    interaction: int
    may_be_used: bool  # its token, in an earlier try

    @property
    def owner(self) -> tuple[int, str]:
        return self.interaction, self.phase


class LorawanAdapter:
    """One live connection. See ``Adapter`` and ``TokenMaker``."""

    def __init__(self, context: AdapterContext, *, pace: Pace) -> None:
        settings = context.settings
        self._context = context
        self._settings = settings
        self._clock = context.clock
        self._pace = pace
        self._meters = {device.serial: device for device in context.devices if device.kind is NodeKind.METER}
        self._gateways = {
            device.serial.lower(): device for device in context.devices if device.kind is NodeKind.GATEWAY
        }
        self._relay_bit = lora.RelayBit(settings["relay_bit"])
        self._headers = lora.auth_headers(settings["api_token"])
        ca = settings["ca_certificate"]
        caller = GrpcCaller if is_grpc(settings["api_url"]) else WebCaller
        self._rest = caller(settings["api_url"], timeout_s=pace.call_s, ca_pem=ca, key="api_url")
        self._sts = None
        if settings["sts_url"]:
            self._sts = WebCaller(settings["sts_url"], timeout_s=pace.call_s, ca_pem=ca, key="sts_url")
        self._pairing = lora.Pairing(keep_undecodable=True)  # D-29, D-33
        self._uplinks: asyncio.Queue[Uplink | Exception] = asyncio.Queue(MAX_UPLINKS)
        self._seen: OrderedDict[lora.Event, float] = OrderedDict()
        self._sent: OrderedDict[str, _Sent] = OrderedDict()
        self._strangers: set[str] = set()
        self._keyless: set[str] = set()  # registered here, and their key is not yet
        self._links: dict[str, LinkState] = {}
        self._raised: set[str] = set()
        self._refused: Counter[str] = Counter()  # by the listener, as of the last look
        self._listener: WebhookListener | None = None
        self._mqtt: MqttLink | None = None

    def ways(self) -> dict[str, bool]:
        """How answers may come, and whether the settings use it."""
        return {"webhook": bool(self._settings["webhook_port"]), "MQTT": bool(self._settings["mqtt_host"])}

    @property
    def webhook_port(self) -> int:
        """The port that events are listened for on; 0: none."""
        return self._listener.port if self._listener is not None else 0

    # ---------------------------------------------------------------- opening

    def open(self) -> AbstractAsyncContextManager[None]:
        """Listen for events and watch the gateways. Leaving ends every call at once.

        Raises:
            LinkError: the port cannot be listened on. ConfigError: a setting is missing.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        try:
            async with AsyncExitStack() as stack:
                await self._start(stack)
                async with beside() as group:
                    watch = group.create_task(self._watch_gateways(), name="gateways")
                    try:
                        yield
                    finally:
                        watch.cancel()
                        await self.close()
        finally:
            await self.close()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        if not any(self.ways().values()):
            raise ConfigError(NO_WAY, key="webhook_port", expected="a port, or an MQTT broker")
        if settings["webhook_port"]:
            self._listener = WebhookListener(
                settings["webhook_host"] or "127.0.0.1",
                settings["webhook_port"],
                settings["webhook_token"],
                on_event=self._webhook,
            )
            await stack.enter_async_context(self._listener.open())
        if settings["mqtt_host"]:
            tls: ssl.SSLContext | None = client_context(settings["ca_certificate"]) if settings["mqtt_tls"] else None
            self._mqtt = MqttLink(
                settings["mqtt_host"],
                settings["mqtt_port"],
                on_message=self._mqtt_message,
                on_state=self._mqtt_state,
                user=settings["mqtt_user"],
                password=settings["mqtt_password"],
                tls=tls,
            )
            self._mqtt.subscribe(lora.topic_filter(settings["application_id"]))
            await stack.enter_async_context(self._mqtt.open())

    async def close(self) -> None:
        await self._rest.close()
        if self._sts is not None:
            await self._sts.close()

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """Events as they come. A meter's link is the one to the network server; a gateway's is as that says."""
        while True:
            item = await self._uplinks.get()
            if isinstance(item, Exception):
                raise item
            yield item

    def _tell(self, *uplinks: Uplink) -> bool:
        """Hand over to the pipeline; False: too much waits there already."""
        if self._uplinks.maxsize - self._uplinks.qsize() < len(uplinks):
            return False
        for uplink in uplinks:
            self._uplinks.put_nowait(uplink)
        return True

    # ---------------------------------------------------------------- commands

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        """Put one downlink into the meter's queue at the network server; REGISTER is answered at once.

        Raises:
            DeliveryFailure: refused, or accepted without an id. LinkError: not reached. ParameterError: cannot be sent.
        """
        if request.device.kind is not NodeKind.METER:
            raise LocalProtocolError(NOT_FOR_GATEWAYS)
        serial = request.device.serial
        if request.spec.name == "REGISTER":
            return await self._register(request)
        command = lora.command_of(request.spec.name)
        token = rules.token_of(request) if command in lora.TOKEN_COMMANDS else None
        frame = lora.encode(
            serial, command, phase=request.phase or None, token=token, values=request.params
        )  # fmt: skip
        call = lora.enqueue_call(lora.eui_from_serial(serial), frame)
        hidden = str(call.body["queueItem"]["data"]) if token is not None and call.body is not None else ""
        try:
            status, body = await self._ask(call, request.tap, hidden)
            if 200 <= status < 300 and _parsed(body) is None:
                raise RemoteProtocolError(NOT_REST)
            ref = lora.judge_enqueued(status, body)
        except RemoteProtocolError as exc:
            raise _delivery_failure(exc, "ENQUEUE_FAILED") from exc
        sent = _Sent(
            command, request.phase, request.tap, request.interaction.id, may_be_used=rules.may_be_used(request)
        )
        if (known := self._sent.get(ref)) is not None and known.owner != sent.owner:
            text = "The network server took the command under the queue id of another one."
            raise DeliveryFailure("ENQUEUE_FAILED", text, Disposition.RETRY)
        self._sent[ref] = sent
        while len(self._sent) > MAX_REFS:
            self._sent.popitem(last=False)
        return Accepted(ref)

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        """Never asked: answers are pushed."""
        return None

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        """Whether the item is still in the network server's queue (section 5.3)."""
        try:
            call = lora.queue_call(lora.eui_from_serial(request.device.serial))
        except ParameterError:  # the serial was edited meanwhile
            return False
        return ref in lora.judge_queue(*await self._ask(call, request.tap))

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        """No command is answered by its effect."""
        return None

    async def verify(self, request: Dispatch) -> Answer | None:
        """Cannot tell: a read back takes the way of a command of its own (``follow_up_on_failure``)."""
        return None

    async def _ask(self, call: lora.RestCall, tap: Tap | None, hidden: str = "") -> tuple[int, bytes]:
        def hide(text: str) -> str:
            return text.replace(hidden, sts.HIDDEN) if hidden else text

        body = _json(call.body) if call.body is not None else b""
        reply = await self._rest.call(call.method, call.path, body, headers=self._headers, tap=tap, hide=hide)
        return reply.status, reply.body

    # ---------------------------------------------------------------- registering (section 5.4, D-48)

    async def _register(self, request: Dispatch) -> Answer:
        serial, tap = request.device.serial, request.tap
        settings = self._settings
        eui = lora.eui_from_serial(serial)
        key = request.params.get("application_key") or settings["application_key"]
        create = lora.create_device_call(serial, settings["application_id"], settings["device_profile_id"])
        give_key = lora.create_keys_call(eui, key) if key else None
        warnings = list(lora.serial_warnings(serial))
        try:
            is_new = lora.judge_created(*await self._ask(create, tap))
            if is_new:
                self._keyless.add(eui)
            needs_key = eui in self._keyless or await self._has_no_key(eui, tap)
            if needs_key and give_key is not None:
                lora.judge_created(*await self._ask(give_key, tap, key.lower()))
                self._keyless.discard(eui)
        except RemoteProtocolError as exc:
            raise _delivery_failure(exc, "REGISTRATION_FAILED") from exc
        if needs_key and give_key is None:
            warnings.append("No application key is known, so the meter cannot join until it is given one.")
        text = "The meter is registered." if is_new else "The meter was registered before; it stays as it is."
        return Answer(
            result={"registered": True, "was_new": is_new, "eui": eui, "warnings": warnings},
            text=" ".join([text, *warnings]),
            facts={"registered": True, "eui": eui},
        )

    async def _has_no_key(self, eui: str, tap: Tap) -> bool:
        """True only when the network server says that an existing device has none (an earlier try was cut off)."""
        call = lora.RestCall("GET", f"/api/devices/{eui}/keys")
        status, body = await self._ask(call, None)  # the answer holds the key: it is not shown
        tap(Direction.OUT, b"", f"asked whether {eui} has a key: HTTP {status}", link=self._rest.name)
        return status == 404 and _member(_parsed(body), "code") == lora.NOT_FOUND

    # ---------------------------------------------------------------- tokens

    async def make_token(self, request: Dispatch, issued: datetime) -> str:
        """A token of the token service; making one sells nothing, so a failure may be tried again.

        Raises:
            DeliveryFailure, LinkError, RemoteProtocolError.
        """
        if self._sts is None:
            text = "No token service is set for this connection, so no token can be made for LoRaWAN meters."
            raise DeliveryFailure("NO_TOKEN_SERVICE", text, Disposition.FINAL)
        key = rules.decoder_key(request.device, self._context.secrets)
        try:
            call = sts.sts_service_token(
                sts.command_named(request.spec.name),
                key,
                random_numbers.randbelow(16),
                issued.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                kwh=request.params.get("transactive_kwh"),
                power_limit=request.params.get("target_power_limit"),
            )
        except (ParameterError, LocalProtocolError) as exc:
            raise DeliveryFailure("TOKEN_FAILED", str(exc), Disposition.FINAL) from exc
        reply = await self._sts.call(
            call.method, call.path, call.body, headers=call.headers, tap=request.tap, hide=call.hide
        )
        made = sts.judge_sts_service(call, sts.judge_v1(call, rules.as_reply(reply)))
        if isinstance(made, sts.Failed):
            why = made.vendor_reason or made.failure.value.replace("_", " ")
            text = f"The token service made no token ({why}). Look at its address and at the meter's decoder key."
            raise DeliveryFailure("TOKEN_FAILED", text, Disposition.RETRY, made.failure.value)
        try:
            return lora.clean_token(made.token)
        except ParameterError as exc:
            text = f"The token service's answer is no token: {exc}"
            raise DeliveryFailure("TOKEN_FAILED", text, Disposition.RETRY) from exc

    # ---------------------------------------------------------------- events

    def _webhook(self, event: WebhookEvent) -> bool:
        link = self._listener.name if self._listener is not None else "webhook"
        return self._event(event.kind, event.body, event.data, link)

    def _mqtt_message(self, topic: str, payload: bytes) -> None:
        kind = lora.event_of_topic(topic)
        if kind is None:
            return
        try:
            body = lora.read_body(payload)
        except RemoteProtocolError as exc:
            _log.info("an MQTT event was dropped: %s", exc, extra={"adapter": CalinLorawan.key})
            return
        self._event(kind, body, payload, self._mqtt.name if self._mqtt is not None else "mqtt")

    def _mqtt_state(self, connected: bool, text: str) -> None:
        finding = self._finding("MQTT", Severity.WARNING, text or "The MQTT broker is connected.", cleared=connected)
        if finding is not None:
            self._tell(Found(finding))

    def _event(self, kind: str, body: Any, data: bytes, link: str) -> bool:
        """Take one event. False: the pipeline is too far behind."""
        event = lora.parse_event(kind, body, by_shape=False)  # section 6: never guess
        if isinstance(event, (lora.Ignored, lora.Status, lora.Log)):
            return True
        device = self._meters.get(event.serial)
        if device is None:
            self._stranger(event)
            return True
        if self._uplinks.qsize() >= MAX_UPLINKS - 8:
            return False
        now = self._clock.monotonic()
        while self._seen and (
            len(self._seen) >= MAX_SEEN or now - next(iter(self._seen.values())) > lora.PAIRING_TTL_S
        ):
            self._seen.popitem(last=False)
        if event in self._seen:
            return True  # webhook and MQTT brought the same
        self._seen[event] = now
        self._context.tap(Direction.IN, data, f"event of {device.name}", link=link)
        outcome = self._pairing.feed(event, now)
        if isinstance(event, lora.Up):
            self._contact(device, event)
        if outcome is not None:
            self._outcome(outcome, device, link)
        return True

    def _stranger(self, event: lora.Up | lora.Ack | lora.TxAck | lora.Join) -> None:
        """A meter that is not in the tree: told once, for a join and for a report."""
        if event.serial in self._strangers or len(self._strangers) >= MAX_STRANGERS:
            return
        if not isinstance(event, (lora.Up, lora.Join)) or not self._context.devices:
            return
        self._strangers.add(event.serial)
        did = "joined the network" if isinstance(event, lora.Join) else "sends reports"
        finding = Finding(
            at=self._clock.now(),
            device=self._context.devices[0].id,
            severity=Severity.INFO,
            code="UNKNOWN_METER",
            text=f"The meter {event.serial} {did} and is not in the tree.",
        )
        self._tell(Found(finding))

    def _contact(self, device: Device, up: lora.Up) -> None:
        """A decoded uplink is a contact, answer or not (command-flow 5.2)."""
        try:
            lora.decode(up.payload)
        except RemoteProtocolError:
            return
        self._tell(Facts(device.id, self._link_metrics(up.gateway)))

    def _link_metrics(self, gateway: lora.Gateway | None) -> dict[str, Any]:
        """Command-flow 6.3; the gateway is named by the id of its device where that is known."""
        if gateway is None:
            return {}
        known = self._gateways.get(gateway.gateway_id.lower())
        metrics = {"snr": gateway.snr, "rssi": gateway.rssi, "updated_at": self._clock.now()}
        facts: dict[str, Any] = {"connection_metrics": metrics, "relay_node": gateway.gateway_id}
        if known is not None:
            facts["gateway"] = known.id
        return facts

    def _outcome(self, outcome: lora.Outcome, device: Device, link: str) -> None:
        ref = outcome.queue_item_id
        match outcome.delivery, outcome.unsolicited:
            case _, lora.JOIN_NETWORK:  # no contact (command-flow 0.2)
                self._tell(Facts(device.id, {"joined_at": self._clock.now()}, is_contact=False))
            case _, lora.READ_REPORT:
                self._tell(self._report(device, outcome))
            case lora.Delivery.SENT_TO_DEVICE, "":
                self._tell(Transmitted(ref))
            case lora.Delivery.FAILED, "":
                text = lora.FailureClass.DOWNLINK_NOT_ACKNOWLEDGED.sentence
                self._tell(Refused(ref, "NACK", text, Disposition.RETRY))
            case lora.Delivery.SUCCESSFUL, "":
                self._answered(ref, outcome, device, link)

    def _answered(self, ref: str, outcome: lora.Outcome, device: Device, link: str) -> None:
        sent = self._sent.get(ref)
        reply = outcome.reply
        if sent is not None:
            sent.tap(Direction.IN, outcome.payload, ANSWER, link=link)
            if reply is not None and not reply.answers(sent.command, sent.phase or None):
                # The acknowledgement rode on an uplink with another answer: the command goes on waiting.
                text = "the answer to %s is one to another command; it is still waited for"
                _log.info(text, ref, extra={"interaction": sent.interaction})
                return
        self._tell(LateOrPushed(ref, self._answer(outcome, device, sent)))

    def _answer(self, outcome: lora.Outcome, device: Device, sent: _Sent | None) -> Answer:
        reply = outcome.reply
        if reply is None or outcome.failure is not None:
            failure = outcome.failure or lora.FailureClass.UNDECODABLE
            result: dict[str, Any] = {} if reply is None else lora.result(reply)
            if reply is not None and reply.error_code is not None:
                result["error_code"] = reply.error_code
            if failure is lora.FailureClass.TOKEN_NOT_ACCEPTED and sent is not None and sent.may_be_used:
                text = f"{failure.sentence} {rules.USED}"
                return Answer(execution=Execution.UNKNOWN, code=failure.value.upper(), text=text, result=result)
            return Answer(execution=Execution.FAILURE, code=failure.value.upper(), text=failure.sentence, result=result)
        result = _result(reply)
        number = sent.interaction if sent is not None else None
        samples = rules.samples_of(result, device, self._clock.now(), number)
        return Answer(result=result, text=" ".join(reply.warnings), samples=samples)

    def _report(self, device: Device, outcome: lora.Outcome) -> Report:
        """The hourly report (section 4.2). Its facts are those of command-flow 6.2."""
        assert outcome.reply is not None
        report = outcome.reply.reading
        assert isinstance(report, lora.Report)
        result = _result(outcome.reply, self._relay_bit)
        if outcome.gateway is not None:
            result["relay_node"] = outcome.gateway.to_json()
        facts: dict[str, Any] = {"meter_status": report.meter_status.to_json()}
        if report.purchase_remain_source_1 is not None:
            facts["kwh_credit_available"] = report.purchase_remain_source_1
        if "is_on" in result:
            facts["is_on"] = result["is_on"]
        samples = rules.samples_of(result, device, self._clock.now(), meter_time=report.freeze_time)
        answer = Answer(result=result, text=" ".join(outcome.reply.warnings), samples=samples, facts=facts)
        return Report(device=device.id, command=lora.READ_REPORT, answer=answer, dedupe=report.freeze_time)

    # ---------------------------------------------------------------- gateways (section 5.4)

    async def _watch_gateways(self) -> None:
        while True:
            try:
                found = await self.list_gateways()
            except LinkError as exc:
                self._server(LinkState.FAULT, str(exc))
            except RemoteProtocolError as exc:
                self._server(LinkState.ONLINE, f"The gateways' state is not known: {exc}")
            else:
                self._server(LinkState.ONLINE, "")
                self._gateways_seen({gateway.gateway_id: gateway for gateway in found})
            self._look_at_refusals()
            await asyncio.sleep(self._pace.gateway_poll_s)

    def _server(self, link: LinkState, trouble: str) -> None:
        """The network server itself; its state is that of the meters' links."""
        for device in self._meters.values():
            self._link(device, link, trouble if link is LinkState.FAULT else "")
        finding = self._finding(
            "NETWORK_SERVER", Severity.WARNING, trouble or "The network server answers.", cleared=not trouble
        )
        if finding is not None:
            self._tell(Found(finding))

    def _look_at_refusals(self) -> None:
        """Tell of events that the listener refused since the last look; nothing of what they said is kept."""
        if self._listener is None:
            return
        counts = self._listener.counts
        fresh = {name: counts[name] - self._refused[name] for name in REFUSALS if counts[name] > self._refused[name]}
        self._refused = Counter({name: counts[name] for name in REFUSALS})
        text = "No event has been refused since."
        if fresh:
            listed = ", ".join(f"{number} {REFUSALS[name]}" for name, number in fresh.items())
            text = f"Events were refused at {self._listener.name}: {listed}. {REFUSAL_HELP}"
            _log.warning("%s", text, extra={"adapter": CalinLorawan.key})
        finding = self._finding("WEBHOOK", Severity.WARNING, text, cleared=not fresh)
        if finding is not None:
            self._tell(Found(finding))

    def _link(self, device: Device, link: LinkState, text: str) -> None:
        if self._links.get(device.id) is not link:
            self._links[device.id] = link
            self._tell(LinkChange(device.id, link, text))

    async def list_gateways(self, tap: Tap | None = None) -> tuple[GatewayState, ...]:
        """Every gateway the API token may see, at most a thousand.

        Raises:
            LinkError: not reached. RemoteProtocolError: refused, or no list.
        """
        found: list[GatewayState] = []
        tenant = f"&tenantId={self._settings['tenant_id']}" if self._settings["tenant_id"] else ""
        for page in range(GATEWAY_PAGES):
            path = f"/api/gateways?limit={GATEWAY_PAGE}&offset={page * GATEWAY_PAGE}{tenant}"
            status, body = await self._ask(lora.RestCall("GET", path), tap)
            if not 200 <= status < 300:
                message = _member(_parsed(body), "message")
                said = message[:200] if isinstance(message, str) else f"HTTP status {status}"
                raise RemoteProtocolError(f"The network server refused: {said}")
            rows = _member(lora.read_body(body), "result")
            if rows is None:
                rows = []  # an empty list may be left out
            if not isinstance(rows, list):
                raise RemoteProtocolError("The network server's list of gateways is not a list.")
            found += [state for row in rows if (state := _gateway_state(row)) is not None]
            if len(rows) < GATEWAY_PAGE:
                break
        return tuple(found)

    def _gateways_seen(self, found: Mapping[str, GatewayState]) -> None:
        for gateway_id, device in self._gateways.items():
            state = found.get(gateway_id)
            online = state is not None and state.online
            text = "" if online else "The network server says that it is offline."
            if state is None:
                text = "The network server does not know this gateway, or the API token may not see it."
            self._link(device, LinkState.ONLINE if online else LinkState.FAULT, text)
            facts: dict[str, Any] = {"is_online": online, "is_online_updated_at": self._clock.now()}
            if state is not None and state.seen:
                facts["last_online_at"] = state.seen
            self._tell(Facts(device.id, facts, is_contact=online))

    def _finding(self, code: str, severity: Severity, text: str, *, cleared: bool = False) -> Finding | None:
        """A lasting finding when it begins and when it ends; None in between."""
        if cleared is (code not in self._raised) or not self._context.devices:
            return None
        (self._raised.discard if cleared else self._raised.add)(code)
        return Finding(
            at=self._clock.now(),
            device=self._context.devices[0].id,
            severity=severity,
            code=code,
            text=text,
            cleared=cleared,
        )


# ---------------------------------------------------------------- small helpers


def _result(reply: lora.Reply, relay_bit: lora.RelayBit = lora.RelayBit.SET_MEANS_OFF) -> dict[str, Any]:
    found = lora.result(reply, relay_bit)
    return {**found, "warnings": list(reply.warnings)} if reply.warnings else found


def _delivery_failure(exc: RemoteProtocolError, code: str) -> DeliveryFailure:
    """Section 5.6. A registration that is refused for good is not tried again (D-48)."""
    if not isinstance(exc, lora.SendError):
        return DeliveryFailure(code, str(exc), Disposition.RETRY)
    if exc.is_final:
        return DeliveryFailure(exc.fault.value.upper(), str(exc), Disposition.FINAL)
    is_final = code == "REGISTRATION_FAILED" and exc.grpc_code not in PASSING_CODES
    return DeliveryFailure(code, str(exc), Disposition.FINAL if is_final else Disposition.RETRY)


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _parsed(body: bytes) -> Any:
    try:
        return lora.read_body(body)
    except RemoteProtocolError:
        return None


def _member(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, Mapping) else None


def _gateway_state(row: Any) -> GatewayState | None:
    """``state`` is the name or the number of an enumeration; a default of 0 may be left out."""
    gateway_id, state, seen = (_member(row, name) for name in ("gatewayId", "state", "lastSeenAt"))
    if not isinstance(gateway_id, str) or not gateway_id:
        return None
    online = state == "ONLINE" or (state == NUMBER_OF_GATEWAY_ONLINE and not isinstance(state, bool))
    return GatewayState(gateway_id.lower()[:64], online, seen[:64] if isinstance(seen, str) else "")
