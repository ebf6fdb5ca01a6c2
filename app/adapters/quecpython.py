"""The QuecPython module link: framed UART between meter and module, raw TCP behind it (specs/quecpython-rfc1662.md).

One adapter, four roles: meter or module on a line, the server that modules connect to, and the passthrough between TCP
and a line. The roles are in ``_quecpython_roles``, ``_quecpython_server`` and ``_quecpython_bridge``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from app.adapters import _quecpython_rules as rules
from app.adapters._live import NeverAsked
from app.adapters._quecpython_bridge import BridgeRole, TapRole
from app.adapters._quecpython_core import Core, Pace
from app.adapters._quecpython_rereading import reread
from app.adapters._quecpython_roles import MeterRole, ModuleRole, Role
from app.adapters._quecpython_server import Bounds, ServerRole
from app.errors import LinkError, LinkReason
from app.model.command import CommandSpec, ParamSpec
from app.model.device import Device, NodeKind
from app.model.interaction import Frame
from app.model.line import LineFormat
from app.model.reading import LinkState
from app.ports import Adapter, AdapterContext, Answer, Dispatch, Limits, Reach, RetryPolicy, Uplink
from app.transports.line import Line, LineOpener
from app.transports.tcp_link import TcpListener, TcpStream

OTHER_ROLE: Final = (
    "Another device uses this line in another role. Give both the same role, or this one a line of its own."
)


async def open_real_line(address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
    """See LineOpener; what opens ports is imported on use."""
    from app.transports.open_line import open_line

    return await open_line(address, line_format, whose=whose, rs485=rs485)


class QuecPython:
    """AdapterType of the module link."""

    key = "quecpython"
    title = "QuecPython module link"
    summary = "Frames on a UART between meter and module, raw TCP behind it; plays each side, or stands between."

    def __init__(
        self, *, open_line: LineOpener = open_real_line, pace: Pace | None = None, bounds: Bounds | None = None
    ) -> None:
        self._open_line = open_line
        self._pace = pace if pace is not None else Pace()
        self._bounds = bounds if bounds is not None else Bounds()

    def form(self) -> tuple[ParamSpec, ...]:
        return rules.FORM

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """One message at a time on a line; nothing is sent a second time by itself."""
        return Limits(
            reach=Reach.DIRECT,
            needs_link=True,
            exclusive=rules.role_of(settings) != rules.SERVER,
            max_in_flight=1,
            accept_timeout_s=rules.longest_s(settings),
            retry=RetryPolicy(retries=0),
        )

    def lane(self, device: Device) -> str:
        """The line; at a server each module by itself."""
        return device.id if rules.role_of(device.settings) == rules.SERVER else self.connection(device)

    def connection(self, device: Device) -> str:
        """The line, or the address that is listened on."""
        setting = rules.setting
        if rules.role_of(device.settings) == rules.SERVER:
            host = str(setting(device.settings, "listen_host")).strip()
            return f"{host}:{setting(device.settings, 'listen_port')}"
        return str(setting(device.settings, "line")).strip() or device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return rules.commands(device.settings, is_child=device.kind is NodeKind.METER)

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return rules.unsupported(device.settings, is_child=device.kind is NodeKind.METER)

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ()

    def create(self, context: AdapterContext) -> Adapter:
        return QuecAdapter(context, open_line=self._open_line, pace=self._pace, bounds=self._bounds)

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """The frames, lines and payloads that came back. See ``Rereader``.

        Left out: what differs between the generations, which a setting tells. None for SEND_FRAME and BURST_TEST (what
        comes back may be damaged, and is told as the role sees it that was played), and where a password was hidden.
        """
        return reread(spec, params, frames)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Open the line, or try the listening address; nothing is sent."""
        config = rules.config_of(context.settings)
        if config.role == rules.SERVER:
            return [await _try_listening(config)]
        line = await self._open_line(config.line, config.format, whose=context.devices[0].name, rs485=config.rs485)
        await line.close()
        lines = [f"{line.name} can be opened{f' at {config.format}' if line.has_rate else ''}. Nothing was sent."]
        if config.role == rules.PASSTHROUGH and not config.other:
            lines.append(await _try_listening(config))
        return lines


async def _try_listening(config: rules.Config) -> str:
    async def hang_up(stream: TcpStream) -> None:
        stream.abort()

    where = f"{config.host}:{config.port}"
    try:
        async with TcpListener(config.host, config.port, hang_up).open():
            return f"Modules can be listened for on {where}."
    except LinkError as exc:
        if exc.reason is not LinkReason.BUSY:
            raise
        return f"{where} is listened on already: by this program's open connection, or by another program."


class QuecAdapter(NeverAsked):
    """One live connection. See ``Adapter``."""

    def __init__(self, context: AdapterContext, *, open_line: LineOpener, pace: Pace, bounds: Bounds) -> None:
        lead = context.devices[0]
        if rules.role_of(lead.settings) == rules.SERVER:
            lead = next((one for one in context.devices if one.kind is NodeKind.GATEWAY), lead)
        config = rules.config_of(context.settings_of(lead.id))
        self._core = Core(context, lead, config, pace)
        self._open_line = open_line
        self._role = _role(self._core, config, bounds)
        role = rules.role_of(lead.settings)
        self._strangers = [one for one in context.devices if rules.role_of(one.settings) != role]

    @property
    def listen_port(self) -> int:
        """The port that is listened on; 0 where none is."""
        return self._role.listen_port

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the line or listen. Leaving gives everything back at once.

        Raises:
            LinkError: the line cannot be opened, or the address not be listened on.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        async with self._role.opened(self._open_line):
            for device in self._core.context.devices:
                if device in self._strangers:
                    self._core.link(device.id, LinkState.FAULT, OTHER_ROLE)
                elif device is not self._core.device and self._core.config.role != rules.SERVER:
                    self._core.link(device.id, LinkState.ONLINE)
            yield

    def uplinks(self) -> AsyncIterator[Uplink]:
        """What comes unasked. Raises LinkError when the line is lost."""
        return self._core.stream()

    async def submit(self, request: Dispatch) -> Answer:
        """Carry out one command.

        Raises:
            LinkError: the line is gone. DeliveryFailure: it cannot be done now. ParameterError: it cannot be sent.
        """
        return await self._role.submit(request)

    async def verify(self, request: Dispatch) -> Answer | None:
        """Parameters can be read back; nothing else."""
        return await self._role.verify(request)


def _role(core: Core, config: rules.Config, bounds: Bounds) -> Role:
    match config.role, config.mode:
        case rules.SERVER, _:
            return ServerRole(core, bounds)
        case rules.MODULE, _:
            return ModuleRole(core)
        case rules.PASSTHROUGH, rules.TAP:
            return TapRole(core)
        case rules.PASSTHROUGH, _:
            return BridgeRole(core)
        case _:
            return MeterRole(core)
