"""ChirpStack's calls in both their forms, REST and gRPC, and the libraries that know its messages.

The libraries are those of the extra ``chirpstack``; they are imported on use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.errors import ConfigError


class Route(NamedTuple):
    """One call in both its forms.

    ``path`` has ``{}`` in place of the device's id, and ``member`` (dotted JSON names) says where in the message that
    stands; a path without it has no such member.
    """

    verb: str
    path: str
    service: str
    method: str
    member: str = ""

    def id_in(self, path: str) -> str | None:
        """The device's id in a REST path of this call, "" when it has none; None when it is another call's."""
        found = re.fullmatch(self.path.replace("{}", "([0-9a-f]{16})"), path)
        return None if found is None else found[1] if self.member else ""


ROUTES: Final = (
    Route("POST", "/api/devices", "DeviceService", "Create"),
    Route("POST", "/api/devices/{}/queue", "DeviceService", "Enqueue", "queueItem.devEui"),
    Route("GET", "/api/devices/{}/queue", "DeviceService", "GetQueue", "devEui"),
    Route("DELETE", "/api/devices/{}/queue", "DeviceService", "FlushQueue", "devEui"),
    Route("POST", "/api/devices/{}/keys", "DeviceService", "CreateKeys", "deviceKeys.devEui"),
    Route("GET", "/api/devices/{}/keys", "DeviceService", "GetKeys", "devEui"),
    Route("GET", "/api/gateways", "GatewayService", "List"),
)


@dataclass(frozen=True, slots=True)
class Libraries:
    """``services``: ChirpStack's, their descriptors by name."""

    grpc: Any
    json_format: Any
    message_class: Callable[[Any], Any]
    services: Mapping[str, Any]


def libraries() -> Libraries:
    """gRPC, protobuf and ChirpStack's messages.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        import grpc
        from chirpstack_api.api import device_pb2, gateway_pb2
        from google.protobuf import json_format
        from google.protobuf.message_factory import GetMessageClass
    except ImportError as exc:
        text = f"gRPC needs {exc.name}, which is not installed: install the extra meterwright[chirpstack], or use REST."
        raise ConfigError(text) from exc
    services = {
        name: service
        for module in (device_pb2, gateway_pb2)
        for name, service in module.DESCRIPTOR.services_by_name.items()
    }
    return Libraries(grpc, json_format, GetMessageClass, services)
