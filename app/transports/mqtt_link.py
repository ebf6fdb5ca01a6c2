"""MQTT: one client in paho's own thread; what it hears is handed over to the loop with ``call_soon_threadsafe``.

The number of messages between thread and loop is bounded: what does not fit is dropped and counted. Connecting again
is paho's own work, with back-off; subscriptions are made anew at every connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from app.errors import ConfigError, LinkError, LinkReason

MAX_PAYLOAD: Final = 1 << 20
MAX_PENDING: Final = 1000
MAX_TOPICS: Final = 100
KEEPALIVE_S: Final = 30
CONNECT_S: Final = 5.0
RECONNECT_S: Final = (1, 30)
PUBLISH_S: Final = 10.0
CLOSE_S: Final = 2.0

OnMessage = Callable[[str, bytes], None]
OnState = Callable[[bool, str], None]


class MqttLink:
    """A client of one broker. Callbacks run on the loop that opened it.

    Args:
        on_message: topic and payload of every message of a subscription.
        on_state: True when connected, False with a sentence when not.
        tls: a context for TLS, None for plain TCP.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        on_message: OnMessage,
        on_state: OnState = lambda _connected, _text: None,
        user: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
        client_id: str = "",
        max_payload: int = MAX_PAYLOAD,
        max_pending: int = MAX_PENDING,
        reconnect_s: tuple[int, int] = RECONNECT_S,
    ) -> None:
        if not host or any(character.isspace() or character in "/@?#" for character in host):
            raise ConfigError("is no address", key="mqtt_host", expected="an IP address or a name")
        self._host = host
        self._port = port
        self._on_message = on_message
        self._on_state = on_state
        self._max_payload = max_payload
        self._max_pending = max_pending
        self._topics: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mutex = threading.Lock()
        self._pending = 0
        self._closing = False
        self._connected = False
        self._published: dict[int, asyncio.Future[None]] = {}
        self.dropped = 0
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv311)
        client.connect_timeout = CONNECT_S
        client.reconnect_delay_set(*reconnect_s)
        client.max_queued_messages_set(max_pending)
        if user:
            client.username_pw_set(user, password or None)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._thread_connected
        client.on_connect_fail = self._thread_failed
        client.on_disconnect = self._thread_disconnected
        client.on_message = self._thread_message
        client.on_publish = self._thread_published
        self._client = client

    @property
    def name(self) -> str:
        return f"mqtt {self._host}:{self._port}"

    @property
    def is_connected(self) -> bool:
        return self._connected

    def open(self) -> AbstractAsyncContextManager[None]:
        """Start the thread; it connects, and connects again, until the context is left."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self._host, self._port, keepalive=KEEPALIVE_S)
        self._client.loop_start()
        try:
            yield
        finally:
            await self._close()

    async def _close(self) -> None:
        self._closing = True
        loop = self._loop
        self._client.disconnect()
        for future in self._published.values():
            future.cancel()
        self._published.clear()
        ended = asyncio.Event()

        def stop() -> None:
            self._client.loop_stop()  # waits for paho's thread, which may be inside a connect
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=stop, name="mqtt stop", daemon=True).start()
        with contextlib.suppress(TimeoutError):  # the thread ends by itself a little later
            async with asyncio.timeout(CLOSE_S):
                await ended.wait()

    def subscribe(self, topic: str, qos: int = 1) -> None:
        """Ask for a topic now and after every new connection.

        Raises:
            ConfigError: a topic filter that MQTT does not allow, or too many.
        """
        if not topic or len(topic.encode()) > 65535 or "\0" in topic or len(self._topics) >= MAX_TOPICS:
            raise ConfigError("is no topic that can be asked for", key="topic", expected="an MQTT topic filter")
        with self._mutex:
            self._topics[topic] = qos
        if self._connected:
            self._client.subscribe(topic, qos)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, timeout_s: float = PUBLISH_S) -> None:
        """Send one message; with ``qos`` 1 it waits for the broker's word.

        Raises:
            LinkError: not connected, or no word in time.
        """
        if not self._connected or self._closing:
            text = f"There is no connection to {self.name}."
            raise LinkError(text, LinkReason.CLOSED, may_have_arrived=False)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        info = self._client.publish(topic, payload, qos=qos)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            text = f"{self.name} did not take a message: {paho.error_string(info.rc)}"
            raise LinkError(text, LinkReason.CLOSED, may_have_arrived=False)
        self._published[info.mid] = done  # the thread's word comes through the loop and cannot overtake this
        try:
            async with asyncio.timeout(timeout_s):
                await done
        except TimeoutError:
            raise LinkError(f"{self.name} did not confirm a message in {timeout_s:g} s.", LinkReason.SILENT) from None
        finally:
            self._published.pop(info.mid, None)

    # ---------------------------------------------------------------- in paho's thread

    def _hand_over(self, work: Callable[..., None], *arguments: Any) -> bool:
        loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:  # the loop has ended
            return False
        return True

    def _thread_connected(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._closing:
            client.disconnect()
            return
        if reason.is_failure:
            self._hand_over(self._state, False, f"{self.name} refused the login: {reason}.")
            return
        with self._mutex:
            topics = list(self._topics.items())
        self._connected = True
        if topics:
            client.subscribe(topics)
        self._hand_over(self._state, True, "")

    def _thread_failed(self, client: paho.Client, _data: Any) -> None:
        if self._closing:
            client.disconnect()
            return
        text = f"No connection to {self.name}; it is tried again. Check address, port and TLS."
        self._hand_over(self._state, False, text)

    def _thread_disconnected(
        self, _client: paho.Client, _data: Any, _flags: Any, _reason: Any, _properties: Any
    ) -> None:
        was, self._connected = self._connected, False
        if was and not self._closing:
            self._hand_over(self._state, False, f"The connection to {self.name} broke; it is made again.")

    def _thread_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        with self._mutex:
            if self._closing or len(message.payload) > self._max_payload or self._pending >= self._max_pending:
                self.dropped += 1
                return
            self._pending += 1
        if not self._hand_over(self._message, message.topic, bytes(message.payload)):
            with self._mutex:
                self._pending -= 1

    def _thread_published(self, _client: paho.Client, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        self._hand_over(self._word, mid)  # paho holds a lock of its own here: take none

    # ---------------------------------------------------------------- on the loop

    def _state(self, connected: bool, text: str) -> None:
        if not self._closing:
            self._on_state(connected, text)

    def _message(self, topic: str, payload: bytes) -> None:
        with self._mutex:
            self._pending -= 1
        if not self._closing:
            self._on_message(topic, payload)

    def _word(self, mid: int) -> None:
        future = self._published.get(mid)
        if future is not None and not future.done():
            future.set_result(None)
