"""The MQTT integration of the simulated ChirpStack: gives its events to a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from app.errors import LinkError
from app.transports.mqtt_link import MqttLink


class MqttPublisher:
    """A ``ChirpStackConfig.publish`` that sends to a broker while its context ``open`` lasts.

    Choice: an event that cannot be given to the broker is lost and counted, as one that no webhook takes.
    """

    def __init__(self, host: str, port: int, *, user: str = "", password: str = "") -> None:
        self._link = MqttLink(
            host, port, on_message=lambda _topic, _payload: None, on_state=self._state, user=user, password=password
        )
        self._changed = asyncio.Event()
        self.lost = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Connect, and connect again when the broker goes away."""
        async with self._link.open():
            yield self

    async def until_connected(self) -> None:
        """Return when the broker has taken the login. No deadline."""
        while not self._link.is_connected:
            self._changed.clear()
            await self._changed.wait()

    async def __call__(self, topic: str, payload: bytes) -> None:
        try:
            await self._link.publish(topic, payload)
        except LinkError:
            self.lost += 1

    def _state(self, _connected: bool, _text: str) -> None:
        self._changed.set()


def broker_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``host``. Raises ValueError."""
    host, _, port = text.partition(":")
    number = int(port or "1883")
    if not host or not 0 < number < 65536:
        raise ValueError(text)
    return host, number
