"""The DLMS meter behind mode E of the IEC 62056-21 simulator: HDLC octets in, HDLC octets out."""

from __future__ import annotations

from app.simulators import _dlms_wire as wire
from app.simulators._dlms_objects import Meter, MeterConfig
from app.simulators._http import Faults, SimClock
from app.simulators.dlms import DLMS_FAULTS, Association, DlmsConfig, keys_of


class HdlcSide:
    """One session after the option select. It answers every HDLC address: one head has one meter before it."""

    def __init__(self, serial: str) -> None:
        self._config = DlmsConfig(framing="hdlc", meter=MeterConfig(serial=serial))
        self._meter = Meter(self._config.meter, SimClock())
        self._keys = keys_of(self._config)
        self._faults = Faults(DLMS_FAULTS)
        self._framer = wire.HdlcFramer()
        self._link = wire.HdlcLink()
        self._associations: dict[int, Association] = {}
        self.is_over = False  # the client has disconnected

    def answer(self, data: bytes) -> list[bytes]:
        """The frames that answer these octets."""
        return [reply for frame in self._framer.feed(data) if (reply := self._reply(frame))]

    def _reply(self, frame: wire.HdlcFrame) -> bytes:
        turn = self._link.handle(frame)
        if turn.is_reset:
            self._associations.clear()
            self.is_over = not self._link.is_connected
        if turn.apdu is None:
            return turn.reply
        client = wire.address_value(frame.source)[0]
        if client not in self._associations:
            self._associations[client] = Association(
                self._meter, self._keys, self._config, self._faults, client, {}
            )
        answer = self._associations[client].answer(turn.apdu)
        if answer is None:
            self._link.take_back()
            return b""
        return self._link.send(answer)
