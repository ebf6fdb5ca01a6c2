"""A stand-in for the cloud hub of the EMS system: takes devices and dashboards, relays between them.

Source of the rules: ems-websocket.md; section numbers below are its own. Where the specification says nothing, the
choice made stands in a comment beginning with "Choice:".
"""

from __future__ import annotations

import asyncio
import hmac
import http
import json
import re
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, broadcast
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from app.errors import ConfigError, LinkError, LinkReason
from app.simulators._http import (
    HOST,
    FaultKind,
    Faults,
    SimClock,
    count,
    fault_help,
    is_http_status,
    is_name,
    is_seconds,
    read_extra,
    seconds,
    yes,
)
from app.simulators._life import Running
from app.simulators.catalog import Announce, SimOptions
from app.simulators.ems import DEVICE_PATH, ID, EdgeConfig, EmsEdgeSimulator, device_ids
from app.transports.ws_stream import SILENT_LOG

PING_S: Final = 20.0  # section 2
PONG_S: Final = 40.0  # dead 60 s after the last pong
MAX_MESSAGE: Final = 1 << 20
KEPT: Final = 200
_PATH: Final = re.compile(r"/ws/(?P<role>device|dashboard)/(?P<device>[A-Za-z0-9_.-]{1,64})")

HUB_FAULTS: Final[Mapping[str, FaultKind]] = {
    # at every try to connect; scope: a device
    "refuse": FaultKind("every upgrade is refused with 403"),
    "http-error": FaultKind("every upgrade is answered with this status", "503", is_http_status),
    # at every packet on its way to dashboards; scope: a device
    "no-relay": FaultKind("telemetry is not relayed"),
    "slow": FaultKind("telemetry is relayed so many seconds late", "3", is_seconds),
    "duplicate": FaultKind("telemetry is relayed twice"),
    "bad-json": FaultKind("half of the telemetry is relayed"),
    "other-device": FaultKind("the packet of another device is relayed", "ems_999", is_name),
    "drop": FaultKind("dashboards are cut off"),
    # commands of a dashboard; scope: a device
    "lose-command": FaultKind("a command is taken and not sent on"),
}
FAULTS: Final[Mapping[str, str]] = fault_help(HUB_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """How the hub stands. ``token`` of the devices (may hold ``{device_id}``), ``dashboard_token`` of those who watch.

    ``has_commands``: what a dashboard sends goes on to the device (section 1: the reference relays none). ``devices``:
    so many edge devices of its own connect to it.
    """

    port: int = 0
    token: str = field(default=f"token-{ID}", repr=False)
    dashboard_token: str = field(default="dashboard", repr=False)
    has_commands: bool = False
    devices: int = 0
    is_rich: bool = False
    seed: int = 0
    time_scale: float = 1.0
    faults: tuple[str, ...] = ()


class EmsHubSimulator(Running):
    """The hub: ``async with EmsHubSimulator(HubConfig(...)) as hub``, then ``hub.url`` takes devices and dashboards.

    To look at: ``devices`` and ``dashboards`` that are connected, ``packets`` (last one of each device), ``received``,
    ``relayed``, ``commands`` (texts of dashboards, with the device), ``refused``, ``edge`` (its own devices). Change
    the faults from the loop that runs it.

    Raises:
        ConfigError: an empty token, or (on entering) a wrong fault. LinkError: (on entering) the port is taken.
    """

    name = "ems-hub"
    host: Final = HOST

    def __init__(self, config: HubConfig | None = None, *, clock: SimClock | None = None) -> None:
        super().__init__()
        self.config = config or HubConfig()
        if not self.config.token or not self.config.dashboard_token:
            raise ConfigError("Nobody connects without a token.", key="token", expected="at least one character")
        self.clock = clock or SimClock(time_scale=self.config.time_scale)
        self.faults = Faults(HUB_FAULTS, self.notify)
        self.port = self.config.port
        self.devices: dict[str, ServerConnection] = {}
        self.dashboards: dict[str, set[ServerConnection]] = {}
        self.packets: dict[str, dict[str, Any]] = {}
        self.commands: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self.received = self.relayed = self.refused = 0
        self.edge: EmsEdgeSimulator | None = None

    @property
    def url(self) -> str:
        """Address without a path."""
        return f"ws://{self.host}:{self.port}"

    async def _prepare(self, stack: AsyncExitStack) -> None:
        for spec in self.config.faults:
            self.faults.set(spec)
        server = await self._listen()
        stack.push_async_callback(self._stop, server)
        self.port = server.sockets[0].getsockname()[1]

    async def _begin(self, stack: AsyncExitStack) -> None:
        if self.config.devices:
            edge = EdgeConfig(
                url=f"{self.url}{DEVICE_PATH}",
                ids=device_ids(self.config.devices),
                token=self.config.token,
                is_rich=self.config.is_rich,
                seed=self.config.seed,
            )
            self.edge = await stack.enter_async_context(EmsEdgeSimulator(edge, clock=self.clock))

    async def _listen(self) -> Server:
        try:
            return await serve_websocket(
                self._serve,
                self.host,
                self.port,
                process_request=self._judge,
                compression=None,
                ping_interval=PING_S,
                ping_timeout=PONG_S,
                max_size=MAX_MESSAGE,
                logger=SILENT_LOG,  # at its lowest level the library logs headers
            )
        except OSError as exc:
            raise LinkError(
                f"The simulator cannot listen on {self.host}:{self.port} ({exc.strerror}). "
                "Choose another port, or 0 for a free one.",
                LinkReason.BUSY,
                may_have_arrived=False,
            ) from exc

    async def _stop(self, server: Server) -> None:
        for link in [*self.devices.values(), *(one for some in self.dashboards.values() for one in some)]:
            link.transport.abort()
        server.close()
        await server.wait_closed()

    # -- who comes

    def _judge(self, link: ServerConnection, request: Request) -> Response | None:
        """The refusal of an upgrade, None to let it in (section 2)."""
        match = _PATH.fullmatch(urlsplit(request.path).path)
        if match is None:
            return link.respond(http.HTTPStatus.NOT_FOUND, "no such path\n")
        status = self.faults.take("http-error", match["device"])
        if self.faults.take("refuse", match["device"]) is not None:
            status = "403"
        if status is None and self._role(request, match) is None:
            status = "403"
        if status is None:
            return None
        self.refused += 1
        self.notify()
        return link.respond(http.HTTPStatus(int(status)), "refused\n")

    def _role(self, request: Request, match: re.Match[str]) -> str | None:
        """``device`` or ``dashboard``; None: the token is wrong. Older dashboards use the path of a device."""
        said = request.headers.get_all("Authorization")
        token = said[0].removeprefix("Bearer ") if len(said) == 1 and said[0].startswith("Bearer ") else ""
        if hmac.compare_digest(token.encode(), self.config.dashboard_token.encode()):
            return "dashboard"
        wanted = self.config.token.replace(ID, match["device"])
        is_device = match["role"] == "device" and hmac.compare_digest(token.encode(), wanted.encode())
        return "device" if is_device else None

    async def _serve(self, link: ServerConnection) -> None:
        request = link.request
        match = _PATH.fullmatch(urlsplit(request.path).path) if request is not None else None
        if request is None or match is None:
            return
        with suppress(ConnectionClosed):
            if self._role(request, match) == "device":
                await self._serve_device(link, match["device"])
            else:
                await self._serve_dashboard(link, match["device"])

    async def _serve_device(self, link: ServerConnection, device: str) -> None:
        old, self.devices[device] = self.devices.get(device), link
        if old is not None:
            self.spawn(_replace(old), f"{device}:replaced")
        self.notify()
        try:
            async for message in link:
                self._take(device, message)
        finally:
            if self.devices.get(device) is link:
                del self.devices[device]
            self.notify()

    async def _serve_dashboard(self, link: ServerConnection, device: str) -> None:
        watching = self.dashboards.setdefault(device, set())
        watching.add(link)
        self.notify()
        try:
            async for message in link:
                await self._command(device, message)
        finally:
            watching.discard(link)
            self.notify()

    # -- what comes

    def _take(self, device: str, message: str | bytes) -> None:
        """Telemetry of a device; what is none, or names another device, is dropped (section 2)."""
        try:
            packet = json.loads(message) if isinstance(message, str) else None
        except (ValueError, RecursionError):
            packet = None
        if not isinstance(message, str) or not isinstance(packet, dict):
            return
        if "command_id" not in packet:
            if packet.get("device_id") != device:
                return
            self.packets[device] = packet
            self.received += 1
        self._relay(device, message)
        self.notify()

    def _relay(self, device: str, message: str) -> None:
        struck = self.faults.take
        if struck("drop", device) is not None:
            for link in self.dashboards.get(device, ()):
                link.transport.abort()
        if struck("no-relay", device) is not None:
            return
        if (other := struck("other-device", device)) is not None:
            message = message.replace(json.dumps(device), json.dumps(other), 1)
        if struck("bad-json", device) is not None:
            message = message[: len(message) // 2]
        messages = [message] * (2 if struck("duplicate", device) is not None else 1)
        if (late := struck("slow", device)) is not None:
            self.spawn(self._relay_late(device, messages, float(late)), f"{device}:late")
        else:
            self._show(device, messages)

    async def _relay_late(self, device: str, messages: list[str], late_s: float) -> None:
        await self.clock.sleep(late_s)
        self._show(device, messages)

    def _show(self, device: str, messages: list[str]) -> None:
        links: set[Connection] = {*self.dashboards.get(device, ())}
        for message in messages:
            broadcast(links, message)
            self.relayed += len(links)

    async def _command(self, device: str, message: str | bytes) -> None:
        """What a dashboard says; Choice: a command for a device that is not there is lost."""
        if not isinstance(message, str):
            return
        self.commands.append((device, message))
        self.notify()
        link = self.devices.get(device)
        if self.config.has_commands and link is not None and self.faults.take("lose-command", device) is None:
            with suppress(ConnectionClosed):
                await link.send(message)


async def _replace(old: ServerConnection) -> None:
    await old.close(CloseCode.POLICY_VIOLATION, "replaced")


# --------------------------------------------------------------------------------------------------------- command line


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run the hub until cancelled; see ``catalog.ServeFunction``.

    Known ``extra`` names: token (of the devices, may hold {device_id}), dashboard_token, commands (relayed, yes or no),
    devices (count of its own edge devices, 2 by default), rich (their optional groups, yes or no), time_scale (number).
    """
    found = read_extra(
        options.extra,
        {
            "token": str,
            "dashboard_token": str,
            "commands": yes,
            "devices": count,
            "rich": yes,
            "time_scale": seconds,
        },
    )
    found["has_commands"] = found.pop("commands", False)
    found["is_rich"] = found.pop("rich", False)
    found.setdefault("devices", 2)
    config = HubConfig(port=options.port, faults=options.faults, seed=options.seed, **found)
    async with EmsHubSimulator(config) as hub:
        announce(
            {
                "sim": hub.name,
                "host": hub.host,
                "port": hub.port,
                "url": f"{hub.url}/ws/dashboard/{ID}",
                "devices": config.devices,
            }
        )
        await asyncio.get_running_loop().create_future()
