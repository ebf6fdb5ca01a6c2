"""DLMS/COSEM meters over HDLC or the wrapper (specs/iec62056-and-dlms.md part B): the static side.

The live side stands in ``_dlms_live``, which is loaded on use because ``dlms_cosem`` and its ciphers are slow to load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.adapters import _dlms_rules as rules
from app.errors import ParameterError
from app.model.command import CommandSpec, ParamSpec
from app.model.device import Device
from app.model.interaction import Frame
from app.ports import Adapter, AdapterContext, Answer, Limits, RetryPolicy
from app.transports.line import LineOpener
from app.transports.open_line import open_line, parse_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times in seconds that nobody sets by hand; tests shorten them."""

    tick_s: float = 1.0  # how often an idle line is looked at
    goodbye_s: float = 2.0  # a release and a DISC each, when idle
    closing_s: float = 0.4  # the same when the port must be given back
    relay_s: float = 1.0  # between two looks at a relay that moves
    relay_tries: int = 4
    second_s: float = 1.0  # what a second of the settings takes


class Dlms:
    """AdapterType of DLMS/COSEM meters."""

    key = "dlms"
    title = "DLMS/COSEM meter"
    summary = "Meters that speak DLMS/COSEM over a serial line, an optical head or TCP, with or without keys."

    def __init__(self, *, open_line: LineOpener = open_line, pace: Pace | None = None) -> None:
        self._open_line = open_line
        self._pace = pace if pace is not None else Pace()
        self._refused: dict[bytes, str] = {}
        self._commands: dict[str, tuple[Mapping[str, Any], tuple[CommandSpec, ...]]] = {}

    def form(self) -> tuple[ParamSpec, ...]:
        return rules.FORM

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """One request at a time on a line; nothing is sent a second time by the pipeline (frames are repeated here)."""
        checked = rules.settings_of(settings)
        return Limits(
            exclusive=True,
            needs_link=True,
            max_in_flight=1,
            accept_timeout_s=rules.call_s(checked, 8),
            retry=RetryPolicy(retries=0),
        )

    def lane(self, device: Device) -> str:
        """The line, which several meters may share."""
        return self.connection(device)

    def connection(self, device: Device) -> str:
        address = str(device.settings.get("address") or "")
        try:
            return parse_address(address).text
        except ParameterError:
            return address or device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        kept = self._commands.get(device.id)
        if kept is None or kept[0] != device.settings:
            kept = dict(device.settings), rules.commands(device.settings)
            self._commands[device.id] = kept
        return kept[1]

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return rules.UNSUPPORTED

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ("energy_import", "power_import", "voltage_l1", "current_l1")

    def create(self, context: AdapterContext) -> Adapter:
        from app.adapters._dlms_live import DlmsAdapter

        return DlmsAdapter(context, open_line=self._open_line, pace=self._pace, refused=self._refused)

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """Every command, carried out once more on its recorded answers. See ``Rereader``.

        Left out: what this computer's clock, the way the meter counts its deviation, or a scaler that was read with an
        earlier command decides. None where the meter ciphers, for keys are not recorded, and where an answer was given
        to an earlier command.
        """
        from app.adapters._dlms_rereading import reread

        return reread(spec, params, frames)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Open, associate, read the meter's name, close. A person asks, so a refused password is tried once more."""
        from app.adapters._dlms_live import DlmsAdapter

        self._refused.pop(rules.access_digest(context.settings), None)
        adapter = DlmsAdapter(context, open_line=self._open_line, pace=self._pace, refused=self._refused)
        async with adapter.open():
            return await adapter.look()
