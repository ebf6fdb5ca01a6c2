"""Meters behind the device-messaging service: its form, what each plugin can do, how long it may take, correlation ids.

Tables and small pure rules (specs/headend-device-messaging.md; section numbers below are its own).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from app.adapters import _calin_rules as calin_rules
from app.errors import ConfigError, ParameterError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, ReplyPattern, Resend
from app.model.device import Device, NodeKind
from app.ports import Dispatch, Limits, Reach, RetryPolicy
from app.protocols import calin_api as calin
from app.protocols import calin_lorawan as lora
from app.protocols import device_messaging as dm
from app.protocols import device_messaging_config as service

CALL_S: Final = 15.0  # ours: enqueue, fetch, cancel; a service without its store answers after ten seconds
ACCEPT_S: Final = 50.0  # ours: an enqueue, what is asked before it and what is asked when its answer is lost
TOKEN_S: Final = 125.0  # section 5: up to 120 s
FIRST_POLL_S: Final = 5.0  # ours: while a person looks on, the stages in between are of interest (section 7)
SPACING_S: Final = 0.005  # ours: a fleet at once would fill the connections
WEBHOOK_POLL_S: Final = 120.0  # ours: with a webhook a look is a safety net
POLL_S: Final = ((20.0, 5.0), (90.0, 10.0))  # ours, without a webhook: age below -> delay
POLL_LATE_S: Final = 30.0
MAX_NUMBER: Final = 0xFFFF_FFFF  # section 3: of networks and relay nodes
MAX_IN_FLIGHT: Final = 100_000  # the service queues them
BLOCKED_PORTS: Final = frozenset(
    {
        1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
        110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
        531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045,
        4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080,
    }
)  # fmt: skip
"""Ports that the service posts nothing to: it sends with ``fetch``, which blocks them (fetch.spec.whatwg.org)."""
LOST_ANSWERS: Final = RetryPolicy(retries=5, backoff_s=2.0, cap_s=60.0, jitter=0.5)
"""For reads whose answer was lost, and for what never reached the service; delivery itself is repeated there alone."""


# ---------------------------------------------------------------- the connection form


def _text(name: str, title: str, description: str = "", *, default: str = "", **more: Any) -> ParamSpec:
    return ParamSpec(name=name, title=title, required=False, default=default, help=description, **more)


def _secret(name: str, title: str, description: str = "") -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.SECRET, required=False, default="", help=description, max_bytes=4096
    )  # fmt: skip


class _ServiceConfig(ParamSpec):
    """The text of the service's configuration (section 9), or nothing."""

    __slots__ = ()

    def parse(self, value: Any) -> str:
        """Raises ParameterError: it is not what the service would start with."""
        text = str(super().parse(value) or "")
        try:
            service.read_config(text)
        except ConfigError as exc:
            raise ParameterError(f"{self.title}: {exc}", self.name) from exc
        return text


class _WebhookPort(ParamSpec):
    """A port that the service can post to, or 0."""

    __slots__ = ()

    def parse(self, value: Any) -> int:
        """Raises ParameterError: no port, or one that the service posts nothing to."""
        port = int(super().parse(value))
        if port in BLOCKED_PORTS:
            text = f"{self.title}: the head-end cannot post to port {port}, which its runtime blocks; take another one."
            raise ParameterError(text, self.name)
        return port


FORM: Final[tuple[ParamSpec, ...]] = (
    ParamSpec(
        name="url", title="Head-end", pattern=r"https?://[^\s?#@]+", max_bytes=500, default="http://127.0.0.1:3100",
        help="Address of the device-messaging service, for example http://127.0.0.1:3100.",
    ),
    _secret("api_key", "Key", "Sent as Authorization: Bearer. Empty for a service that asks for none."),
    ParamSpec(
        name="ca_certificate", title="Trusted certificate", type=ParamType.PEM, required=False, default="",
        help="For a service behind TLS with a certificate of its own; empty: the usual authorities.",
    ),
    _text("webhook_host", "Listen on", "Address of this computer for the service's events; 127.0.0.1: only from here.",
          default="127.0.0.1", max_bytes=253),
    _WebhookPort(
        name="webhook_port", title="Listen on port", type=ParamType.INTEGER, required=False, default=0, minimum=0,
        maximum=65535,
        help="0: no webhook. Then only whether a command has ended can be seen, not what was answered.",
    ),
    _secret("webhook_secret", "Webhook secret",
            "The service signs its events with it. May be empty only while listening on this computer alone."),
    _text("token_plugin", "Token plugin", "Plugin that makes tokens for meters whose own plugin makes none: nxt-sts.",
          max_bytes=100),
    _text("correlation_prefix", "Prefix of commands",
          "Stands before the number of each command at the service. Empty: mw- and a word of this workspace, so that "
          "two workspaces at one service do not meet.", pattern=r"[A-Za-z0-9_.:-]{1,40}"),
    ParamSpec(
        name="poll_s", title="Look at a command every", type=ParamType.DECIMAL, unit="s", required=False,
        default=Decimal(0), minimum=0, maximum=3600,
        help="0: every two minutes with a webhook; without one faster at first, later every half minute.",
    ),
    _ServiceConfig(
        name="service_config", title="Configuration of the service", required=False, default="", is_multiline=True,
        max_bytes=64 * 1024,
        help="The JSON that the service is started with: its plugins and waits then hold here too. Empty: any plugin, "
             "and the usual waits.",
    ),
)  # fmt: skip


def config_of(settings: Mapping[str, Any]) -> service.ServiceConfig:
    """The service as its configuration says; as usual where that is not given, or is refused by the form."""
    text = settings.get("service_config")
    try:
        return service.read_config(text if isinstance(text, str) else "")
    except ConfigError:
        return service.DEFAULT


def hears(settings: Mapping[str, Any]) -> bool:
    """Whether answers come: a webhook is listened for, and the service is not known to post none."""
    return bool(settings.get("webhook_port")) and config_of(settings).webhook is not None


def prefix_of(settings: Mapping[str, Any], workspace: str) -> str:
    """What correlation ids begin with: as it was entered, or the workspace's own."""
    entered = str(settings.get("correlation_prefix") or "")
    return entered or (f"mw-{workspace[:8]}-" if workspace else "mw-")


def limits(settings: Mapping[str, Any]) -> Limits:
    """What the service does itself is not done here: no slots, no repeated delivery."""
    given = next(spec for spec in FORM if spec.name == "poll_s").parse(settings.get("poll_s"))
    poll_s = float(given)
    has_webhook = hears(settings)
    usual = WEBHOOK_POLL_S if has_webhook else POLL_LATE_S
    config = config_of(settings)
    plugins = config.plugins or dm.PLUGINS
    longest = max(longest_s(config, plugin) for plugin in plugins)
    return Limits(
        reach=Reach.GATEWAY,
        max_in_flight=MAX_IN_FLIGHT,
        spacing_s=SPACING_S,
        accept_timeout_s=ACCEPT_S,
        stage_timeout_s=longest,
        stage_code="HEAD_END_SILENT",
        stage_is_final=True,
        renewable=True,
        device_timeout_s=max(config.longest_s(plugin, dm.Pattern.PUSH) for plugin in plugins),
        first_poll_s=poll_s or FIRST_POLL_S,
        poll_s=() if poll_s or has_webhook else POLL_S,
        poll_late_s=poll_s or usual,
        needs_link=True,
        asks_first=True,
        token_is_sale=True,
        late_s=longest,
        retry=LOST_ANSWERS,
    )


ATTRIBUTES: Final[tuple[ParamSpec, ...]] = (
    ParamSpec(
        name="plugin", title="Plugin at the head-end",
        choices=tuple((name, name) for name in dm.PLUGINS),
        help="It decides which commands there are. One that is not in the list may be typed.",
    ),
    ParamSpec(
        name="network_id", title="Number of its grid at the head-end", type=ParamType.INTEGER, required=False,
        minimum=0, maximum=MAX_NUMBER, help="LoRaWAN meters of one grid share a pace. Empty: none",
    ),
    ParamSpec(
        name="relay_node", title="Number of its concentrator", type=ParamType.INTEGER, required=False, minimum=0,
        maximum=MAX_NUMBER,
        help="Needed with " + " and ".join(name for name, plugin in dm.PLUGINS.items() if plugin.needs_relay_node),
    ),
    ParamSpec(
        name="phases", title="Phases", type=ParamType.CHOICE, required=False, default=1,
        choices=((1, "one"), (3, "three")), help="A meter of three phases is asked phase by phase.",
    ),
)  # fmt: skip
"""What the service has to be told of each meter (sections 3 and 3.1)."""


# ---------------------------------------------------------------- plugins and what they can do

EVERY: Final = tuple({spec.name: spec for spec in (*calin_rules.V1, *calin_rules.LORAWAN)}.values())
_OFFERED: Final[Mapping[str, tuple[CommandSpec, ...]]] = MappingProxyType(
    {
        "calin-chirpstack": calin_rules.LORAWAN,
        "calin-api-v1": calin_rules.V1,
        "calin-api-v2": calin_rules.V2,
        "nxt-sts": (),
    }
)
NO_PLUGIN: Final = "enter its plugin at the head-end (attribute plugin), for example calin-chirpstack"
NOT_FOR_HEAD_ENDS: Final = "This is a head-end; it does no command of a meter."
READ_METRICS: Final = CommandSpec(
    name="READ_METRICS",
    title="Read metrics",
    kind=CommandKind.READ,
    answer_timeout_s=CALL_S + 5.0,
    reaches_device=False,
    help="What the service counts: queues, finished commands, events, and what it ignored.",
)


def plugin_of(device: Device) -> str:
    return str(device.attributes.get("plugin") or "").strip()


def number_of(device: Device, name: str) -> int | None:
    """A whole number among a device's attributes; None: not entered.

    Raises:
        ParameterError: it is no whole number.
    """
    raw = device.attributes.get(name)
    if raw is None or raw == "":
        return None
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().isascii() and raw.strip().isdigit():
        return int(raw)
    raise ParameterError(f"The attribute {name} of {device.name} must be a whole number.", name)


def not_enabled(plugin: str) -> str:
    return f"the plugin {plugin} is not enabled at the head-end (see its configuration at the connection)"


def longest_s(config: service.ServiceConfig, plugin: str) -> float:
    """The longest that the service may take for one command."""
    return config.longest_s(plugin, pattern_of(plugin))


def pattern_of(plugin: str) -> dm.Pattern | None:
    """None: of a plugin that nobody knows."""
    known = dm.PLUGINS.get(plugin)
    return known.pattern if known is not None else None


@lru_cache(maxsize=256)
def _through(plugin: str, longest: float, *, is_old: bool) -> tuple[CommandSpec, ...]:
    """As they leave through the service: looked at, and never sent a second time where that may have an effect."""
    return tuple(
        replace(
            spec,
            pattern=ReplyPattern.PULL,
            resend=Resend.NEVER if spec.has_effect else Resend.SAFE,
            answer_timeout_s=longest,
        )
        for spec in (calin_rules.V1_OLD_FIRMWARE if is_old else _OFFERED.get(plugin, EVERY))
    )


def _firmware(device: Device, facts: Mapping[str, Any]) -> str:
    return str(facts.get("version") or device.attributes.get("firmware") or "")


def commands(device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
    """The capability table of section 3.1; a plugin that is not in it is offered everything, one that the service's
    configuration does not list nothing. A head-end tells what it counts."""
    if device.kind is NodeKind.GATEWAY:
        return (READ_METRICS,)
    plugin = plugin_of(device)
    config = config_of(device.settings)
    if device.kind is not NodeKind.METER or not plugin or not config.offers(plugin):
        return ()
    is_old = plugin == "calin-api-v1" and not calin.is_supported(
        calin.Api.V1, calin.Command.READ_POWER_LIMIT, firmware=_firmware(device, facts)
    )
    return _through(plugin, longest_s(config, plugin), is_old=is_old)


def unsupported(device: Device, facts: Mapping[str, Any]) -> dict[str, str]:
    """Commands of other plugins, with the reason."""
    plugin = plugin_of(device)
    offered = {spec.name for spec in commands(device, facts)}
    reasons: Mapping[str, str] = {}
    if device.kind is not NodeKind.METER:
        general = NOT_FOR_HEAD_ENDS
    elif not plugin:
        general = NO_PLUGIN
    elif not config_of(device.settings).offers(plugin):
        general = not_enabled(plugin)
    else:
        firmware = _firmware(device, facts)
        reasons = {
            "calin-chirpstack": lora.UNSUPPORTED,
            "calin-api-v1": calin_rules.vendor_unsupported(calin.Api.V1, firmware),
            "calin-api-v2": calin_rules.vendor_unsupported(calin.Api.V2, firmware),
        }.get(plugin, {})
        general = f"the plugin {plugin} does not do this"
    return {spec.name: reasons.get(spec.name, general) for spec in EVERY if spec.name not in offered}


# ---------------------------------------------------------------- correlation ids (sections 1 and 4.2)


@dataclass(frozen=True, slots=True)
class Run:
    """What a correlation id is made for. ``number`` and ``attempt`` count from 1.

    A command that a person tries again is another message at the service, and so is a read whose answer was lost: two
    messages under one id would hide each other there. What may have an effect is never enqueued again after an enqueue
    that may have arrived, so it keeps its first id.
    """

    interaction: int
    phase: str = ""
    number: int = 1
    attempt: int = 1

    @property
    def earlier(self) -> tuple[Run, ...]:
        """Those that may have been enqueued before it, newest first."""
        return tuple(replace(self, attempt=attempt) for attempt in range(self.attempt - 1, 0, -1))


def run_for(request: Dispatch) -> Run:
    attempt = 1 if request.spec.has_effect else request.attempt
    return Run(request.interaction.id, request.phase, request.run, attempt)


def correlation_id(prefix: str, run: Run) -> str:
    """The same for one attempt of one run for ever, also after a restart of this program; up to 82 characters."""
    number = str(run.number) if run.number > 1 else ""
    attempt = f"t{run.attempt}" if run.attempt > 1 else ""
    return "-".join(part for part in (f"{prefix}{run.interaction}", run.phase, number, attempt) if part)


_RUN: Final = re.compile(r"([0-9]{1,18})(?:-([ABC]))?(?:-([0-9]{1,9}))?(?:-t([0-9]{1,9}))?")


def run_of(prefix: str, correlation: str) -> Run | None:
    """None: it is not one of ours."""
    found = _RUN.fullmatch(correlation.removeprefix(prefix)) if correlation.startswith(prefix) else None
    if found is None:
        return None
    return Run(int(found[1]), found[2] or "", int(found[3] or 1), int(found[4] or 1))


# ---------------------------------------------------------------- tokens (section 5)

STUB: Final = "stub-"  # plugins for tests, whose tokens are words


def token_plugins(device: Device, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The plugins that may make a meter's tokens, in the order to ask them: its own where that can, else the one that
    was named; of its own that nobody knows, it is found out."""
    own, named = plugin_of(device), str(settings["token_plugin"]).strip()
    known = dm.PLUGINS.get(own)
    asked = [own] if own and (known is None or known.mints) else []
    if named and named not in asked and (known is None or not known.mints):
        asked.append(named)
    return tuple(asked)
