"""Connections: one adapter instance each, opened, listened to, and reopened with back-off.

An adapter's expected failures (LinkError, ProtocolError, a wrong setting) mark its devices and are retried. Anything
else is a bug of that adapter: it is reported, its devices show it, and the other connections go on (DECISIONS D-005).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from app.errors import ConfigError, LinkError, ParameterError, ProtocolError
from app.model.command import check_params
from app.model.device import Device
from app.model.reading import LinkState
from app.pipeline.ledger import Ledger
from app.ports import Adapter, AdapterContext, AdapterType, Clock, LinkChange, Secrets, Uplink

_log = logging.getLogger(__name__)

CLOSE_S: Final = 5.0  # for a connection to end
BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
KEYRING: Final = "keyring:"

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class UplinkSink(Protocol):
    def __call__(self, scope: str, uplink: Uplink) -> None: ...


@dataclass(slots=True)
class _Connection:
    scope: str
    type: AdapterType
    devices: tuple[Device, ...]
    task: asyncio.Task[None] | None = None
    adapter: Adapter | None = None
    online_once: bool = False


class Links:
    """The live connections of a workspace."""

    def __init__(
        self,
        *,
        types: Mapping[str, AdapterType],
        ledger: Ledger,
        clock: Clock,
        secrets: Secrets,
        spawn: Spawn,
        sink: UplinkSink,
        opened: Callable[[], None],
        facts: Callable[[str], Mapping[str, Any]],
        learnt: Callable[[str], Mapping[str, Any]],
        register_secret: Callable[[str], None],
        workspace: str = "",
        seen: Callable[[str], Mapping[str, float]] = lambda _adapter: {},
    ) -> None:
        self._types = types
        self._ledger = ledger
        self._clock = clock
        self._secrets = secrets
        self._spawn = spawn
        self._sink = sink
        self._opened = opened
        self._facts = facts
        self._learnt = learnt
        self._register_secret = register_secret
        self._workspace = workspace
        self._seen = seen
        self._connections: dict[str, _Connection] = {}
        self._scope_of: dict[str, str] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def adapter(self, device: str) -> Adapter | None:
        """The open adapter of a device, or None."""
        connection = self._connections.get(self._scope_of.get(device, ""))
        return connection.adapter if connection is not None else None

    def scope(self, device: str) -> str:
        return self._scope_of.get(device, device)

    def sync(self, devices: Iterable[Device]) -> None:
        """Open, close and reopen connections so that they match the tree."""
        wanted: dict[str, list[Device]] = {}
        for device in devices:
            adapter_type = self._types.get(device.adapter)
            if adapter_type is None or not device.enabled:
                continue
            wanted.setdefault(f"{device.adapter}|{adapter_type.connection(device)}", []).append(device)
        for scope in [scope for scope in self._connections if scope not in wanted]:
            self._close(scope)
        for scope, members in wanted.items():
            group = tuple(members)
            present = self._connections.get(scope)
            if present is not None and _same(present.devices, group):
                continue
            if present is not None:
                self._close(scope)
            self._open(scope, self._types[group[0].adapter], group)

    def context(self, adapter_type: AdapterType, devices: tuple[Device, ...]) -> AdapterContext:
        """Settings checked by the form, secrets resolved.

        Raises:
            ConfigError, ParameterError: a setting is wrong or a secret is not in the keyring.
        """
        each = {device.id: self._checked(adapter_type, device) for device in devices}
        return AdapterContext(
            devices=devices,
            settings=each[devices[0].id],
            each=each,
            clock=self._clock,
            tap=self._ledger.tap(devices[0].id),
            taps={device.id: self._ledger.tap(device.id) for device in devices},
            secrets=self._secrets,
            facts=self._facts,
            learnt=lambda: self._learnt(adapter_type.key),
            workspace=self._workspace,
            seen=lambda: self._seen(adapter_type.key),
        )

    def _checked(self, adapter_type: AdapterType, device: Device) -> dict[str, Any]:
        """The settings of one device, secrets resolved. Raises ConfigError, ParameterError."""
        form = adapter_type.form()
        hashes = {spec.name for spec in form if spec.kept_as is not None}  # they are shown nowhere
        given = dict(device.settings)
        for name, value in given.items():
            if isinstance(value, str) and value.startswith(KEYRING):
                words = self._secrets.get(value.removeprefix(KEYRING))
                if words is None:
                    raise ConfigError(
                        "is not in the keyring of this computer; edit the connection and enter it", key=name
                    )
                if name not in hashes:
                    self._register_secret(words)
                given[name] = words
        return check_params(form, given, f"The connection of {device.name}")

    def scope_members(self, adapter_type: AdapterType, device: Device) -> tuple[Device, ...]:
        """The devices of the open connection that ``device`` would share."""
        connection = self._connections.get(f"{adapter_type.key}|{adapter_type.connection(device)}")
        return () if connection is None else connection.devices

    @asynccontextmanager
    async def lent(self, adapter_type: AdapterType, device: Device) -> AsyncIterator[None]:
        """The open connection that ``device`` would share is closed meanwhile, so that its line can be tried."""
        scope = f"{adapter_type.key}|{adapter_type.connection(device)}"
        connection = self._connections.get(scope)
        if connection is None:
            yield
            return
        self._close(scope)
        if connection.task is not None:
            await asyncio.wait({connection.task}, timeout=CLOSE_S)
        try:
            yield
        finally:
            if scope not in self._connections:
                self._open(scope, connection.type, connection.devices)

    def _open(self, scope: str, adapter_type: AdapterType, devices: tuple[Device, ...]) -> None:
        connection = _Connection(scope, adapter_type, devices)
        self._connections[scope] = connection
        for device in devices:
            self._scope_of[device.id] = scope
        connection.task = self._spawn(self._run(connection), f"link:{scope}")

    def _close(self, scope: str) -> None:
        connection = self._connections.pop(scope)
        for device in connection.devices:
            if self._scope_of.get(device.id) == scope:
                del self._scope_of[device.id]
        if connection.task is not None:
            connection.task.cancel()
            self._closing.add(connection.task)
            connection.task.add_done_callback(self._closing.discard)
        connection.adapter = None
        self._mark(connection, LinkState.OFF, "")

    async def _run(self, connection: _Connection) -> None:
        failures = 0
        if self._closing:  # what they hold (a port, a line) may be what this one needs
            await asyncio.wait(set(self._closing), timeout=CLOSE_S)
        while True:
            connection.online_once = False
            self._mark(connection, LinkState.CONNECTING, "")
            try:
                await self._listen(connection)
                self._mark(connection, LinkState.FAULT, "The other side closed the connection.")
            except (ConfigError, ParameterError) as exc:
                self._mark(connection, LinkState.FAULT, str(exc))
                return  # only an edit of the connection can help, and that opens a new one
            except (LinkError, ProtocolError) as exc:
                self._mark(connection, LinkState.FAULT, str(exc))
            except Exception as exc:  # noqa: BLE001 - crash boundary of one connection (DECISIONS D-005)
                _log.exception("the adapter of %s failed", connection.scope)
                self._mark(
                    connection,
                    LinkState.FAULT,
                    f"This adapter has a fault of its own ({type(exc).__name__}) and was stopped. "
                    "Reconnect to try again; the program's log has the details.",
                )
                return
            finally:
                connection.adapter = None
            failures = 0 if connection.online_once else failures + 1
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])

    async def _listen(self, connection: _Connection) -> None:
        adapter = connection.type.create(self.context(connection.type, connection.devices))
        async with adapter.open():
            connection.adapter = adapter
            self._opened()
            async for uplink in adapter.uplinks():
                if self._connections.get(connection.scope) is not connection:
                    return
                if isinstance(uplink, LinkChange) and uplink.link is LinkState.ONLINE:
                    connection.online_once = True
                self._sink(connection.scope, uplink)

    def _mark(self, connection: _Connection, link: LinkState, text: str) -> None:
        for device in connection.devices:
            self._sink(connection.scope, LinkChange(device.id, link, text))


def _same(old: tuple[Device, ...], new: tuple[Device, ...]) -> bool:
    """Whether a connection may stay as it is: names and places in the tree do not matter."""
    return [(d.id, d.adapter, d.serial, dict(d.settings), dict(d.attributes)) for d in old] == [
        (d.id, d.adapter, d.serial, dict(d.settings), dict(d.attributes)) for d in new
    ]
