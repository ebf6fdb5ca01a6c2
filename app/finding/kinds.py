"""What a person chooses from in the connection wizard, what it then asks, and the finder it makes.

Titles and sentences are English here and translated where they are shown, as those of adapters are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.errors import ConfigError
from app.finding.dial_in import AvioraDialIn, DialIn, EmsDialIn, ModuleDialIn
from app.finding.lines import METERS, QUECPYTHON, LineSweep, ports_here
from app.finding.networks import FACTORY, PORT, LemSearch
from app.finding.search import Finder
from app.finding.services import ServiceTry
from app.model.command import ParamSpec, ParamType, check_params
from app.ports import AdapterType, Clock, Secrets
from app.transports.own_addresses import LOOPBACK


class How(StrEnum):
    """How something is found."""

    LINE = "line"  # ports are swept
    ADDRESS = "address"  # one address, or a small network
    DIAL_IN = "dial-in"  # it is waited for
    CREDENTIALS = "credentials"  # an account is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Something that may be in front of a person. ``picture`` names its drawing."""

    name: str
    title: str
    text: str
    picture: str
    adapters: tuple[str, ...]
    how: How


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Kind(
                name="meter-line", title="Meter on an optical head, RS-485 or serial server",
                text="IEC 62056-21 or DLMS/COSEM. Rate, format and protocol are found by trying.",
                picture="optical-head", adapters=METERS, how=How.LINE,
            ),
            Kind(
                name="lem-dcbm", title="LEM DCBM 400/600", text="DC meter of a charging station, on the network.",
                picture="dc-meter", adapters=("lem-dcbm",), how=How.ADDRESS,
            ),
            Kind(
                name="aviora", title="Aviora gateway", text="It dials in to this computer.",
                picture="gateway", adapters=("aviora",), how=How.DIAL_IN,
            ),
            Kind(
                name="ems", title="EMS edge device", text="A battery storage that dials in to this computer.",
                picture="battery", adapters=("ems",), how=How.DIAL_IN,
            ),
            Kind(
                name="ems-head-end", title="EMS device behind a head-end",
                text="Watched as a dashboard does, by address and token.",
                picture="cloud", adapters=("ems",), how=How.CREDENTIALS,
            ),
            Kind(
                name="module-line", title="QuecPython module or its meter, on a serial line",
                text="Either end of the module's UART.",
                picture="module", adapters=(QUECPYTHON,), how=How.LINE,
            ),
            Kind(
                name="module-tcp", title="QuecPython module on the network", text="It dials in to this computer.",
                picture="module", adapters=(QUECPYTHON,), how=How.DIAL_IN,
            ),
            Kind(
                name="calin-lorawan", title="CALIN meters over LoRaWAN", text="Through ChirpStack, with an API token.",
                picture="antenna", adapters=("calin-lorawan",), how=How.CREDENTIALS,
            ),
            Kind(
                name="calin-v1", title="CALIN meters, HTTP service v1", text="Three accounts at the vendor's service.",
                picture="cloud", adapters=("calin-v1",), how=How.CREDENTIALS,
            ),
            Kind(
                name="calin-v2", title="CALIN meters, HTTP service v2", text="One login at the vendor's service.",
                picture="cloud", adapters=("calin-v2",), how=How.CREDENTIALS,
            ),
            Kind(
                name="device-messaging", title="Head-end for fleets",
                text="The device messaging service, with its key.", picture="server",
                adapters=("device-messaging",), how=How.CREDENTIALS,
            ),
        )
    }
)  # fmt: skip

_SERVERS: Final[Mapping[str, type[DialIn]]] = {"aviora": AvioraDialIn, "ems": EmsDialIn, "module-tcp": ModuleDialIn}
_LISTEN_HOST: Final = ParamSpec(
    name="listen_host", title="Listen at", required=False, default=LOOPBACK,
    help="127.0.0.1 is this computer only; choose an address of the device's network.",
)  # fmt: skip
_LISTEN_PORT: Final = ParamSpec(
    name="listen_port", title="Port", type=ParamType.INTEGER, required=False, minimum=0, maximum=65535, default=0,
    help="0: any free one.",
)  # fmt: skip
_DEVICE_ID: Final = ParamSpec(name="device_id", title="Device id", required=False, default="")


def asked(kind: Kind, types: Mapping[str, AdapterType]) -> tuple[ParamSpec, ...]:
    """The fields to fill in before the search begins. Raises ConfigError: its adapter cannot be used here."""
    forms = {spec.name: spec for spec in _type(kind, types).form()}
    match kind.how:
        case How.LINE:
            return (
                ParamSpec(
                    name="port", title="Port", type=ParamType.PORT, required=False, default="", max_bytes=500,
                    help="Empty: all serial ports of this computer. Or socket://HOST:PORT for one on the network.",
                ),
            )  # fmt: skip
        case How.ADDRESS:
            return (
                ParamSpec(
                    name="host", title="Address or network", default=FACTORY, max_bytes=255,
                    help=f"{FACTORY} from the factory; 192.168.1.0/24 searches a network.",
                ),
                ParamSpec(
                    name="port", title="Port", type=ParamType.INTEGER, required=False, default=PORT, minimum=1,
                    maximum=65535,
                ),
            )  # fmt: skip
        case How.DIAL_IN:
            listen = (_LISTEN_HOST, replace(_LISTEN_PORT, default=forms["listen_port"].default))
            return (*listen, _DEVICE_ID, replace(forms["token"], only_for={})) if kind.name == "ems" else listen
        case How.CREDENTIALS:
            if kind.name != "ems-head-end":
                return tuple(forms.values())
            wanted = ("url", "path", "bearer", "trusted", "commands")
            device = replace(_DEVICE_ID, required=True, default=None)
            return (device, *(replace(forms[name], only_for={}) for name in wanted))


async def finder(
    kind: Kind,
    given: Mapping[str, Any],
    *,
    types: Mapping[str, AdapterType],
    clock: Clock,
    secrets: Secrets | None = None,
) -> Finder:
    """The search for what was chosen.

    Args:
        given: values of the fields of ``asked``.
    Raises:
        ParameterError: a value is wrong, or there is no port. ConfigError: the adapter cannot be used here.
        LinkError: the system cannot list its ports.
    """
    values = check_params(asked(kind, types), given, f"The search for {kind.title}")
    common: dict[str, Any] = {"types": types, "clock": clock, "secrets": secrets}
    match kind.how:
        case How.LINE:
            ports = [values["port"]] if values["port"] else [port.address for port in await ports_here()]
            protocols = tuple(key for key in kind.adapters if key in types)
            return LineSweep(ports, protocols=protocols, **common)
        case How.ADDRESS:
            return LemSearch(values["host"], values["port"], **common)
        case How.DIAL_IN:
            host, port = values.pop("listen_host"), values.pop("listen_port")
            return _SERVERS[kind.name](host, port, **values, **common)
        case How.CREDENTIALS:
            serial = values.pop("device_id", "") if kind.name == "ems-head-end" else ""
            settings = {name: value for name, value in given.items() if name in values}
            if kind.name == "ems-head-end":
                settings["role"] = "dashboard"
            return ServiceTry(kind.adapters[0], settings, title=kind.title, serial=serial, **common)


def _type(kind: Kind, types: Mapping[str, AdapterType]) -> AdapterType:
    for key in kind.adapters:
        if key in types:
            return types[key]
    raise ConfigError("cannot be used here; install what it needs", key=kind.adapters[0], expected=", ".join(types))
