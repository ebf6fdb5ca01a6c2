"""The simulators by name: one row each, imported on use, so that a missing library hurts one simulator only.

``meterwright sim list`` and ``meterwright sim NAME --help`` are written from this table and from the fault table of
each simulator. A new simulator is one module and one row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, Protocol

from app.errors import ConfigError
from app.model.interaction import Frame


@dataclass(frozen=True, slots=True)
class SimOptions:
    """What the command line gives a simulator.

    ``port`` 0 lets the system choose; ``faults`` are texts as ``--fault`` takes them; ``seed`` makes random behaviour
    repeatable; ``extra`` holds the simulator's own settings, each documented where it is read; ``frames`` is what a
    kept log holds of the device that ``recorded`` stands in for, oldest first.
    """

    port: int = 0
    faults: tuple[str, ...] = ()
    seed: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)
    frames: tuple[Frame, ...] = field(default=(), repr=False)


RECORDED: Final = "recorded"
"""The simulator that needs a kept log."""

Announce = Callable[[dict[str, object]], None]


class ServeFunction(Protocol):
    """Entry of a simulator: announces where it listens once, then runs until it is cancelled."""

    async def __call__(self, options: SimOptions, announce: Announce) -> None:
        """Serve until cancelled.

        Args:
            options: see SimOptions.
            announce: called once with ``{"sim", "host", "port", "url"}`` as soon as connections are accepted.

        Raises:
            ConfigError: an unknown fault or setting, or a value outside its limits.
            LinkError: the port cannot be opened.
        """


@dataclass(frozen=True, slots=True)
class SimEntry:
    """One simulator; ``serve`` and ``faults`` are ``module:name`` and are imported on use."""

    name: str
    title: str
    help: str
    serve: str
    faults: str
    has_line: bool = False  # it may stand on a pseudo terminal (setting ``link``)

    def load(self) -> ServeFunction:
        """Import and return the entry function.

        Raises:
            ConfigError: the module or a library it needs is missing.
        """
        function: ServeFunction = _resolve(self.name, self.serve)
        return function

    def fault_table(self) -> Mapping[str, str]:
        """Import and return the faults of this simulator: name -> help, in the order to show them.

        Raises:
            ConfigError: the module or a library it needs is missing.
        """
        table: Mapping[str, str] = _resolve(self.name, self.faults)
        return table


def _resolve(sim: str, target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ImportError as exc:
        raise ConfigError(f"The simulator {sim} cannot be loaded: {exc}. Install what it needs.", key=target) from exc


CATALOG: Final[Mapping[str, SimEntry]] = {
    entry.name: entry
    for entry in (
        SimEntry(
            "lem-dcbm",
            "LEM DCBM 400/600",
            "DC energy meter over HTTP or HTTPS with signed OCMF records, firmware generations v1 and v2",
            "app.simulators.lem_dcbm:serve",
            "app.simulators.lem_dcbm:FAULTS",
        ),
        SimEntry(
            "calin-chirpstack",
            "CALIN over LoRaWAN",
            "ChirpStack v4 with CALIN meters: REST, gateways, events by webhook, token service",
            "app.simulators.chirpstack:serve",
            "app.simulators.chirpstack:FAULTS",
        ),
        SimEntry(
            "calin-v1",
            "CALIN HTTP API v1",
            "the vendor's first service with meters behind concentrators: tasks, polling, tokens, hourly data",
            "app.simulators.calin_vendor:serve_v1",
            "app.simulators.calin_vendor:FAULTS",
        ),
        SimEntry(
            "calin-v2",
            "CALIN HTTP API v2",
            "the vendor's second service: login with expiry, tasks, polling, tokens, provisioning, daily report",
            "app.simulators.calin_vendor:serve_v2",
            "app.simulators.calin_vendor:FAULTS",
        ),
        SimEntry(
            "aviora",
            "Aviora gateway",
            "ProtocolZD gateway that dials in (push) and takes requests (pull), with IEC 62056-21 meters behind it",
            "app.simulators.aviora:serve",
            "app.simulators.aviora:FAULTS",
        ),
        SimEntry(
            "ems",
            "EMS edge device",
            "battery systems that connect out to a hub over WebSocket: 1 to 1,000, state machine, commands",
            "app.simulators.ems:serve",
            "app.simulators.ems:FAULTS",
        ),
        SimEntry(
            "ems-hub",
            "EMS cloud hub",
            "stand-in head-end: takes devices and dashboards, relays telemetry and, if wanted, commands",
            "app.simulators.ems_hub:serve",
            "app.simulators.ems_hub:FAULTS",
        ),
        SimEntry(
            "iec62056",
            "IEC 62056-21 meter",
            "meters of several makes on TCP or a pseudo terminal: modes A to E, programming mode, load profiles, logs",
            "app.simulators.iec62056:serve",
            "app.simulators.iec62056:FAULTS",
            has_line=True,
        ),
        SimEntry(
            "dlms",
            "DLMS/COSEM meter",
            "wrapper or HDLC on TCP or a pseudo terminal: associations, about 60 objects, load profile, disconnector",
            "app.simulators.dlms:serve",
            "app.simulators.dlms:FAULTS",
            has_line=True,
        ),
        SimEntry(
            "quec-module",
            "QuecPython module",
            "smart-meter module between a UART and a TCP server; the published firmware's defects as faults",
            "app.simulators.quecpython:serve_module",
            "app.simulators.quecpython:FAULTS_MODULE",
            has_line=True,
        ),
        SimEntry(
            "quec-meter",
            "Meter of a QuecPython module",
            "meter on a module's UART: answers the module, reads its parameters, reports events",
            "app.simulators.quecpython:serve_meter",
            "app.simulators.quecpython:FAULTS_METER",
            has_line=True,
        ),
        SimEntry(
            "device-messaging",
            "Device messaging service",
            "head-end with a queue: enqueue, cancel, retries, signed webhooks, tokens; its meters behind plugins",
            "app.simulators.device_messaging:serve",
            "app.simulators.device_messaging:FAULTS",
        ),
        SimEntry(
            RECORDED,
            "Recorded device",
            "a device of a kept log (--log, --device): answers over HTTP, TCP or WebSocket as it was recorded",
            "app.simulators.recorded:serve",
            "app.simulators.recorded:FAULTS",
        ),
    )
}


def find(name: str) -> SimEntry:
    """The simulator called ``name``.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    try:
        return CATALOG[name]
    except KeyError:
        raise ConfigError(
            f"There is no simulator called {name!r}.", key="sim", expected="one of " + ", ".join(CATALOG)
        ) from None


def listing() -> Iterator[str]:
    """Lines of ``sim list``: each simulator with its faults. A simulator that cannot be loaded says why."""
    for entry in CATALOG.values():
        yield f"{entry.name:<16}{entry.title}: {entry.help}"
        try:
            table = entry.fault_table()
        except ConfigError as exc:
            yield f"    {exc}"
            continue
        for fault, text in table.items():
            yield f"    {fault:<20}{text}"
