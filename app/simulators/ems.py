"""EMS edge devices that connect out to a hub over WebSocket: 1 to 1,000 from one process, with faults.

Source of the rules: ems-websocket.md; section numbers below are its own. Nothing here comes from the codec of the
program's side. Where the specification says nothing, the choice made stands in a comment beginning with "Choice:".
All times are simulated: ``EdgeConfig.time_scale`` makes them short, a ``SimClock(time_scale=0)`` lets a test step
through them. A simulator goes to this machine only.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event
from websockets.protocol import State as Life

from app.errors import ConfigError
from app.simulators._ems_plant import CHARGE_LIMIT_W, DAY_S, DISCHARGE_LIMIT_W, Plant, State, next_state
from app.simulators._http import (
    FaultKind,
    Faults,
    SimClock,
    count,
    fault_help,
    is_name,
    is_seconds,
    one_of,
    read_extra,
    seconds,
    yes,
)
from app.simulators._life import Running
from app.simulators.aviora import is_here
from app.simulators.catalog import Announce, SimOptions
from app.transports.tls_trust import PinnedTls
from app.transports.ws_dial import client_tls
from app.transports.ws_stream import SILENT_LOG

CYCLE_S: Final = 1.0  # section 3: 1 Hz
WATCHDOG_S: Final = 60.0  # section 5
RETRY_S: Final = 5.0  # section 2
RETRY_MOST_S: Final = 60.0
REAL_PAUSE_S: Final = 0.02  # so that a fast clock does not make it connect more often than this
DIALS_A_S: Final = 250  # Choice: a fleet does not come all at once
MAX_DEVICES: Final = 1000
MAX_COMMAND: Final = 1 << 16  # octets
MAX_UNSENT: Final = 4 << 20  # octets a hub does not take; beyond, telemetry is left out
KEPT: Final = 200
ID: Final = "{device_id}"
DEVICE_PATH: Final = f"/ws/device/{ID}"
NUMBERS: Final = (
    "system_status.wifi_strength", "battery.voltage", "battery.current", "battery.power", "battery.soc",
    "grid.voltage", "grid.power", "grid.frequency",
)  # fmt: skip


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,4}", text) is not None


def _is_signed(text: str) -> bool:
    return is_seconds(text.removeprefix("-"))


def _is_word(text: str) -> bool:
    return bool(text) and is_name(text)


EDGE_FAULTS: Final[Mapping[str, FaultKind]] = {
    # at every try to connect; scope: a device
    "wrong-token": FaultKind("connects with another token"),
    "no-header": FaultKind("connects without Authorization"),
    "query-token": FaultKind("the token is in the query of the address and not in the header"),
    # every cycle of one second; scope: a device
    "silence": FaultKind("no telemetry, the connection stays"),
    "burst": FaultKind("telemetry is held back and sent so many packets at a time", "10", _is_number),
    "drop": FaultKind("the connection is cut (or closed in order), then made again", "cut", one_of("cut", "close")),
    "duplicate-connection": FaultKind("a second connection beside the first; both send. Give a count"),
    "zombie-close": FaultKind(
        "a new connection; the old one is deaf and ends so many seconds later. Give a count", "5", is_seconds
    ),
    "no-pong": FaultKind("pings of the hub are not answered"),
    # what a packet holds
    "string-number": FaultKind("this number is sent as a text", "battery.voltage", one_of(*NUMBERS)),
    "missing-group": FaultKind(
        "this part is left out", "battery", one_of("battery", "grid", "system_status", "timestamp", "device_id")
    ),
    "unknown-groups": FaultKind("groups and fields the specification does not name"),
    "nan": FaultKind("battery.power is no number", "NaN", one_of("NaN", "Infinity", "-Infinity")),
    "huge-number": FaultKind("battery.power is this", "1e400", one_of("1e400", "-1e400", "1e999999999", "9" * 400)),
    "deep-json": FaultKind("a value with so many lists in each other", "5000", _is_number),
    "oversized": FaultKind("a packet of this many KiB and more", "1024", _is_number),
    "binary": FaultKind("the packet as a binary message"),
    "bad-utf8": FaultKind("a text message that is no UTF-8"),
    "bad-json": FaultKind("the second half of the packet is missing"),
    "wrong-device-id": FaultKind("the packet names this device", "ems_999", _is_word),
    "backwards-time": FaultKind("the time stamp is so many seconds before the right one", "30", is_seconds),
    "clock-drift": FaultKind("the clock is so many seconds ahead, or behind with a minus", "60", _is_signed),
    # what the device is in
    "stuck-state": FaultKind(
        "the state told is always this one, without value that of the last packet", "", one_of("", *State)
    ),
    "impossible-state": FaultKind("the state told cannot follow that of the last packet"),
    "negative-charging": FaultKind("CHARGING is told with power out of the battery"),
    "error-flag": FaultKind("this error is there: state ERROR until it is gone and reset", "OVERHEAT", _is_word),
    "battery-voltage": FaultKind("the battery has this voltage", "54.2", is_seconds),
    "grid-voltage": FaultKind("the grid has this voltage", "195", is_seconds),
    # commands; scope: a device or an action
    "no-effect": FaultKind("the command is taken and nothing happens"),
    "slow-effect": FaultKind("the command takes effect so many seconds late", "5", is_seconds),
    "acknowledge": FaultKind("the command is answered with its command_id and this status", "ok", _is_word),
    "refuse": FaultKind("the command is answered with this status and not carried out", "error", _is_word),
}
FAULTS: Final[Mapping[str, str]] = fault_help(EDGE_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""

_IMPOSSIBLE_AFTER: Final[Mapping[State, State]] = {
    State.IDLE: State.FULL,  # possible; what comes after it is not
    State.CHARGING: State.DISCHARGING,
    State.DISCHARGING: State.CHARGING,
    State.FULL: State.CHARGING,
    State.EMPTY: State.DISCHARGING,
    State.ERROR: State.CHARGING,
}
UNKNOWN: Final[Mapping[str, object]] = {
    "pv": {"string_1": {"voltage": 312.4, "current": 4.1}, "string_2": {"voltage": 309.8, "current": 3.9}},
    "ambient": {"temperature": 27.3},
    "cells": [3.31, 3.32, 3.3, 3.31],
    "firmware": "2.4.1",
}


def device_ids(number: int, prefix: str = "ems_") -> tuple[str, ...]:
    """``ems_001`` and on."""
    return tuple(f"{prefix}{at:03}" for at in range(1, number + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """How the devices stand at the start; times in simulated seconds, of which ``time_scale`` pass in a real one.

    ``url`` and ``token`` hold ``{device_id}`` where the id belongs. ``ca`` and ``pin`` are PEM files for wss: whoever
    signed the hub's certificate, or that certificate itself; with neither the system's list counts. ``soc`` in
    percent; None: each device another. ``day_s``: length of the day that sun and load follow.
    """

    url: str = f"ws://127.0.0.1:8765{DEVICE_PATH}"
    ids: tuple[str, ...] = device_ids(1)
    token: str = field(default=f"token-{ID}", repr=False)
    is_rich: bool = False
    ca: Path | None = None
    pin: Path | None = None
    soc: float | None = None
    day_s: float = DAY_S
    retry_s: float = RETRY_S
    retry_most_s: float = RETRY_MOST_S
    seed: int = 0
    time_scale: float = 1.0
    faults: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------- connection


class _Link(ClientConnection):
    """One connection of a device: tells it of pings and messages, and leaves out pongs when it says so."""

    device: EdgeDevice | None = None
    _is_hearing = False

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        if self.device is not None and isinstance(event, Frame) and event.opcode in _HEARD:
            self.device.hear_hub()

    def data_received(self, data: bytes) -> None:
        self._is_hearing = True
        try:
            super().data_received(data)
        finally:
            self._is_hearing = False

    def tell(self, data: bytes, *, is_text: bool) -> bool:
        """Send without waiting; whether the connection is open and the hub keeps up."""
        if self.protocol.state is not Life.OPEN or self.transport.get_write_buffer_size() > MAX_UNSENT:
            return False
        if is_text:
            self.protocol.send_text(data)
        else:
            self.protocol.send_binary(data)
        self.send_data()
        return True

    def send_data(self) -> None:
        is_pong = self._is_hearing and self.protocol.state is Life.OPEN  # an open connection answers nothing else
        if is_pong and self.device is not None and self.device.leaves_out_pong():
            self.protocol.data_to_send()
            return
        super().send_data()


_HEARD: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING)


@dataclass(slots=True)
class Command:
    """A command as it came. ``outcome``: "" while it waits for its cycle, else what became of it."""

    command_id: str
    action: str
    payload: Mapping[str, Any]
    due: float  # simulated seconds
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class _Target:
    """A target mode: manual or not, and the power asked for, positive into the battery."""

    is_manual: bool
    sign: int = 0
    limit_w: float = 0.0


_TARGETS: Final[Mapping[str, _Target]] = {
    "AUTO": _Target(False),
    "MANUAL_CHARGE": _Target(True, 1, CHARGE_LIMIT_W),
    "MANUAL_DISCHARGE": _Target(True, -1, DISCHARGE_LIMIT_W),
    "MANUAL_IDLE": _Target(True),
}


def clamped_request(target: str, power: object) -> float | None:
    """Power that a mode asks for, W, within the hardware limits; None: there is no such mode or no such power.

    Choice: without ``target_power`` the limit is asked for; a negative one is none.
    """
    found = _TARGETS.get(target)
    if found is None:
        return None
    if power is None:
        power = found.limit_w
    if isinstance(power, bool) or not isinstance(power, int | float) or not power >= 0:
        return None
    return found.sign * float(min(power, found.limit_w))


class EdgeDevice:
    """One device: a control loop once a second that goes on with and without a hub, and a connection made for ever.

    To look at: ``state``, ``is_manual``, ``request_w``, ``flags``, ``plant``, ``commands`` as they came, ``last`` (the
    last packet as it was meant), ``sent``, ``left_out`` (the hub did not take them), ``connects``, ``refusals`` (HTTP
    status of each), ``closes`` (code and reason of each end).
    """

    def __init__(self, fleet: EmsEdgeSimulator, device_id: str, number: int) -> None:
        config = fleet.config
        self.id = device_id
        self.is_manual = False
        self.request_w = 0.0
        self.state = State.IDLE
        self.flags: list[str] = []
        self.commands: deque[Command] = deque(maxlen=KEPT)
        self.last: dict[str, Any] = {}
        self.sent = self.left_out = self.connects = self.cycles = 0
        self.refusals: deque[int] = deque(maxlen=KEPT)
        self.closes: deque[tuple[int | None, str | None]] = deque(maxlen=KEPT)
        self._fleet = fleet
        self._phase = number / len(config.ids) * CYCLE_S
        self._first_dial = max(self._phase, number / DIALS_A_S)
        self._draw = random.Random(f"{config.seed}:{device_id}:pause")
        start = fleet.clock.start
        hour = start.hour + start.minute / 60 + start.second / 3600
        self.plant = Plant(seed=f"{config.seed}:{device_id}", soc=config.soc, hour=hour, day_s=config.day_s)
        self._links: list[_Link] = []  # those telemetry goes to, the newest last
        self._waiting: deque[Command] = deque()
        self._held: list[tuple[bytes, bool]] = []  # message, and whether it is text
        self._heard_at = fleet.clock.elapsed
        self._seen_at = fleet.clock.elapsed
        self._told = State.IDLE

    @property
    def is_up(self) -> bool:
        return bool(self._links)

    @property
    def links(self) -> int:
        """Open connections that telemetry goes to."""
        return len(self._links)

    def _struck(self, name: str) -> str | None:
        return self._fleet.faults.take(name, self.id)

    # -- the hub

    async def keep_connected(self) -> None:
        """Connect for ever (section 2)."""
        clock, config = self._fleet.clock, self._fleet.config
        await clock.sleep(self._first_dial)
        failures = 0
        while True:
            failures = 0 if await self.connect_once() else failures + 1
            await self._fleet.wait_until(lambda: not self._links)  # another one may have taken the place
            pause_s = min(config.retry_s * 2 ** max(min(failures, 16) - 1, 0), config.retry_most_s)
            await clock.sleep(pause_s * self._draw.uniform(1.0, 1.5))
            await asyncio.sleep(REAL_PAUSE_S)

    async def connect_once(self) -> bool:
        """One connection, from the dial to its end; whether the hub let the device in."""
        link = await self._dial()
        if link is None:
            return False
        link.device = self
        self.hear_hub()
        self._links.append(link)
        self.connects += 1
        self._fleet.notify()
        try:
            with suppress(ConnectionClosed):
                async for message in link:
                    self._take(message)
        finally:
            link.transport.abort()
            if link in self._links:
                self._links.remove(link)
            self.closes.append((link.close_code, link.close_reason))
            self._fleet.notify()
        return True

    async def _dial(self) -> _Link | None:
        fleet = self._fleet
        token = fleet.config.token.replace(ID, self.id)
        if self._struck("wrong-token") is not None:
            token = f"not-{token}"
        url = fleet.config.url.replace(ID, self.id)
        headers = {"Authorization": f"Bearer {token}"}
        if self._struck("no-header") is not None:
            headers = {}
        if self._struck("query-token") is not None:
            headers, url = {}, f"{url}?token={token}"
        try:
            link = await connect(
                url,
                additional_headers=headers,
                compression=None,
                proxy=None,
                ping_interval=None,  # section 2: the hub pings
                max_size=MAX_COMMAND,
                logger=SILENT_LOG,  # at its lowest level the library logs headers
                create_connection=_Link,
                ssl=fleet.tls,
                host=fleet.host,  # named here, so that a redirection to another place is not followed
                port=fleet.port,
            )
        except InvalidStatus as exc:
            self.refusals.append(exc.response.status_code)
            fleet.notify()
            return None
        except (OSError, TimeoutError, ValueError, WebSocketException):  # nobody there, or no hub
            return None
        assert isinstance(link, _Link)
        return link

    def hear_hub(self) -> None:
        """The hub said something, if only a ping: the watchdog starts again."""
        self._heard_at = self._fleet.clock.elapsed

    def leaves_out_pong(self) -> bool:
        return self._struck("no-pong") is not None

    def _take(self, message: str | bytes) -> None:
        """A message of the hub; one that is no command is passed over."""
        try:
            found = json.loads(message)
        except (ValueError, RecursionError):
            return
        match found:
            case {"command_id": str(command_id), "action": str(action), **rest}:
                payload = rest.get("payload")
                late = self._fleet.faults.take("slow-effect", self.id, action)
                due = self._fleet.clock.elapsed + float(late or 0)
                command = Command(command_id, action, payload if isinstance(payload, dict) else {}, due)
                self.commands.append(command)
                self._waiting.append(command)
                self._fleet.notify()

    def _tell(self, data: bytes, *, is_text: bool = True) -> bool:
        """Send on every connection; whether one took it."""
        taken = [link.tell(data, is_text=is_text) for link in self._links]
        return True in taken

    # -- once a second

    async def keep_controlling(self) -> None:
        clock = self._fleet.clock
        at = clock.elapsed + self._phase
        while True:
            await clock.sleep(at - clock.elapsed)
            self.cycle()
            late = max(clock.elapsed - at, 0.0)
            at += CYCLE_S * (1 + late // CYCLE_S)  # a missed cycle is left out

    def cycle(self) -> None:
        """Commands, watchdog, state machine, telemetry (sections 3 to 5)."""
        clock = self._fleet.clock
        passed, self._seen_at = clock.elapsed - self._seen_at, clock.elapsed
        self.plant.advance(passed)
        is_reset = self._carry_out()
        if self.is_manual and clock.elapsed - self._heard_at > WATCHDOG_S:
            self.is_manual = False
        if not self.is_manual:
            self.request_w = self.plant.surplus_w
        self._misbehave()
        self.state = next_state(
            self.state, self.plant.voltage, self.request_w, has_flag=bool(self.flags), is_reset=is_reset
        )
        is_charging = self.state is State.CHARGING and self.request_w > 0
        is_discharging = self.state is State.DISCHARGING and self.request_w < 0
        self.plant.power_w = self.request_w if is_charging or is_discharging else 0.0
        self.cycles += 1
        self._report()
        self._shake()
        self._fleet.notify()

    def _misbehave(self) -> None:
        flag = self._struck("error-flag")
        self.flags = [] if flag is None else [flag]
        held = self._struck("battery-voltage")
        self.plant.held_voltage = None if held is None else float(held)
        held = self._struck("grid-voltage")
        self.plant.held_grid_voltage = None if held is None else float(held)

    def _carry_out(self) -> bool:
        """Do what is due; whether the error is to be reset. Commands keep their order."""
        is_reset = False
        while self._waiting and self._waiting[0].due <= self._fleet.clock.elapsed:
            command = self._waiting.popleft()
            places = (self.id, command.action)
            take = self._fleet.faults.take
            if (status := take("refuse", *places)) is not None:
                command.outcome = "refused"
                answer = {"command_id": command.command_id, "status": status, "message": "refused on demand"}
                self._tell(json.dumps(answer).encode())
                continue
            if take("no-effect", *places) is not None:
                command.outcome = "ignored"
            elif command.action == "RESET_ERROR":
                is_reset, command.outcome = True, "done"
            else:
                command.outcome = "done" if command.action == "SET_MODE" and self._set_mode(command) else "ignored"
            if (status := take("acknowledge", *places)) is not None:
                self._tell(json.dumps({"command_id": command.command_id, "status": status}).encode())
        return is_reset

    def _set_mode(self, command: Command) -> bool:
        """Choice: a mode or a power that there is not changes nothing."""
        target = command.payload.get("target_mode")
        wanted = clamped_request(target, command.payload.get("target_power")) if isinstance(target, str) else None
        if wanted is None:
            return False
        self.is_manual, self.request_w = _TARGETS[str(target)].is_manual, wanted
        return True

    def _shake(self) -> None:
        """Faults of the connection."""
        if (how := self._struck("drop")) is not None:
            for link in list(self._links):
                if how == "cut":
                    link.transport.abort()
                else:
                    self._fleet.spawn(link.close(CloseCode.GOING_AWAY), f"{self.id}:close")
        if len(self._links) != 1:
            return
        if self._struck("duplicate-connection") is not None:
            self._fleet.spawn(self._connect_beside(), f"{self.id}:second")
        elif (late := self._struck("zombie-close")) is not None:
            self._fleet.spawn(self._haunt(self._links[0], float(late)), f"{self.id}:zombie")

    async def _connect_beside(self) -> None:
        await self.connect_once()

    async def _haunt(self, old: _Link, late_s: float) -> None:
        """The old connection hears nothing and says nothing, and ends so long after a new one is there."""
        old.transport.pause_reading()
        self._links.remove(old)
        connects, is_over = self.connects, False

        async def connect_anew() -> None:
            nonlocal is_over
            await self.connect_once()
            is_over = True
            self._fleet.notify()

        self._fleet.spawn(connect_anew(), f"{self.id}:second")
        await self._fleet.wait_until(lambda: self.connects > connects or is_over)
        await self._fleet.clock.sleep(late_s)
        old.transport.resume_reading()
        await old.close()

    # -- telemetry

    def _report(self) -> None:
        self.last = self._packet()
        message = self._encoded(self.last)
        if self._struck("silence") is not None:
            return
        self._held.append(message)
        if (size := self._struck("burst")) is not None and len(self._held) < int(size):
            return
        messages, self._held = self._held, []
        for data, is_text in messages:
            if self._tell(data, is_text=is_text):
                self.sent += 1
            else:
                self.left_out += 1

    def _packet(self) -> dict[str, Any]:
        battery, grid = self.plant.battery(), self.plant.grid()
        told = self.state
        if (stuck := self._struck("stuck-state")) is not None:
            told = State(stuck) if stuck else self._told
        if self._struck("impossible-state") is not None:
            told = _IMPOSSIBLE_AFTER[self._told]
        if self._struck("negative-charging") is not None:
            told = State.CHARGING
            power = -max(abs(self.plant.power_w), 100.0)
            battery |= {"power": round(power, 1), "current": round(power / self.plant.voltage, 2)}
        self._told = told
        packet: dict[str, Any] = {
            "device_id": self.id,
            "timestamp": _time_text(self._fleet.clock.now),
            "system_status": {
                "state": told.value,
                "mode": "MANUAL" if self.is_manual else "AUTO",
                "error_flags": list(self.flags),
                "wifi_strength": self.plant.wifi_dbm,
            },
            "battery": battery,
            "grid": grid,
        }
        if self._fleet.config.is_rich:
            for group, fields in self.plant.more().items():
                packet.setdefault(group, {}).update(fields)
        return packet

    def _encoded(self, packet: Mapping[str, Any]) -> tuple[bytes, bool]:
        """The message, and whether it is text, with the faults of what a packet holds."""
        told: dict[str, Any] = {
            name: dict(group) if isinstance(group, dict) else group for name, group in packet.items()
        }
        if (other := self._struck("wrong-device-id")) is not None:
            told["device_id"] = other
        ahead = float(self._struck("clock-drift") or 0) - float(self._struck("backwards-time") or 0)
        if ahead:
            told["timestamp"] = _time_text(self._fleet.clock.now + timedelta(seconds=ahead))
        if (path := self._struck("string-number")) is not None:
            group, _, name = path.partition(".")
            told[group][name] = str(told[group][name])
        if self._struck("unknown-groups") is not None:
            told |= UNKNOWN
            told["battery"]["cycles"] = 412
        literals = [self._struck(name) for name in ("nan", "huge-number")]
        for literal in literals:
            if literal is not None:
                told["battery"]["power"] = _Literal(literal)
        if (levels := self._struck("deep-json")) is not None:
            told["deep"] = _Literal("[" * int(levels) + "]" * int(levels))
        if (kib := self._struck("oversized")) is not None:
            told["note"] = "x" * (int(kib) << 10)
        if (part := self._struck("missing-group")) is not None:
            del told[part]
        data = _dumped(told)
        if self._struck("bad-json") is not None:
            data = data[: len(data) // 2]
        if self._struck("bad-utf8") is not None:
            data = data[:-1] + b',"note":"\xff\xfe"}'
        return data, self._struck("binary") is None


class _Literal(str):
    """Text that goes into the JSON as it is."""

    __slots__ = ()


def _dumped(told: Mapping[str, Any]) -> bytes:
    """Compact JSON; literals stand in the groups or in the packet itself."""
    literals: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, _Literal):
            literals.append(str(value))
            return f"\0{len(literals) - 1}"
        return {name: marked(inner) for name, inner in value.items()} if isinstance(value, dict) else value

    text = json.dumps(marked(told), separators=(",", ":"))
    for number, literal in enumerate(literals):
        text = text.replace(f'"\\u0000{number}"', literal)
    return text.encode()


def _time_text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---------------------------------------------------------------------------------------------------------------- fleet


class EmsEdgeSimulator(Running):
    """The devices of one process: ``async with EmsEdgeSimulator(EdgeConfig(url=...)) as sim``, then ``sim.devices``.

    They connect by themselves. Change faults (``sim.faults``) and devices from the loop that runs the simulator.

    Raises:
        ConfigError: no device or too many, a hub that is not on this machine, a certificate that cannot be read, a
            clock that cannot run, or (on entering) a wrong fault.
    """

    name = "ems"

    def __init__(self, config: EdgeConfig | None = None, *, clock: SimClock | None = None) -> None:
        super().__init__()
        self.config = config = config or EdgeConfig()
        if not 1 <= len(config.ids) <= MAX_DEVICES or len(set(config.ids)) != len(config.ids):
            raise ConfigError("That is no set of devices.", key="devices", expected=f"1 to {MAX_DEVICES}, each once")
        if config.soc is not None and not 0 <= config.soc <= 100:
            raise ConfigError("There is no such charge.", key="soc", expected="0 to 100 percent")
        if not config.day_s > 0:
            raise ConfigError("A day has to last.", key="day_s", expected="seconds above 0")
        self.host, self.port, self.tls = _where(config)
        self.clock = clock or SimClock(time_scale=config.time_scale)
        self.faults = Faults(EDGE_FAULTS, self.notify)
        self.devices = {device_id: EdgeDevice(self, device_id, number) for number, device_id in enumerate(config.ids)}

    async def _prepare(self, stack: AsyncExitStack) -> None:
        for spec in self.config.faults:
            self.faults.set(spec)

    async def _begin(self, stack: AsyncExitStack) -> None:
        for device in self.devices.values():
            self.spawn(device.keep_connected(), f"{device.id}:link")
            self.spawn(device.keep_controlling(), f"{device.id}:control")

    @property
    def are_up(self) -> bool:
        """Every device is connected."""
        return all(device.is_up for device in self.devices.values())

    @property
    def sent(self) -> int:
        """Packets of all devices that went out."""
        return sum(device.sent for device in self.devices.values())


def _where(config: EdgeConfig) -> tuple[str, int, ssl.SSLContext | None]:
    """Host, port and TLS of the hub. Raises ConfigError."""
    try:
        parts = urlsplit(config.url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in ("ws", "wss") or not is_here(host):
        raise ConfigError("A simulator goes to this machine only.", key="url", expected="ws://127.0.0.1:PORT/...")
    if ID not in parts.path:
        raise ConfigError("The address names no device.", key="url", expected=f"a path with {ID}")
    is_tls = parts.scheme == "wss"
    if not is_tls:
        if config.ca is not None or config.pin is not None:
            raise ConfigError("A certificate needs TLS.", key="url", expected="wss://")
        return host, port or 80, None
    try:
        pin = "" if config.pin is None else config.pin.read_text("ascii")
        context = client_tls(
            pin=PinnedTls.from_der(ssl.PEM_cert_to_DER_cert(pin)) if pin else None,
            ca_pem="" if config.ca is None else config.ca.read_text("ascii"),
        )
    except (OSError, ValueError) as exc:
        raise ConfigError(f"The certificate cannot be used ({exc}).", key="ca or pin", expected="a PEM file") from exc
    return host, port or 443, context


# --------------------------------------------------------------------------------------------------------- command line


def _path(text: str) -> Path:
    if not text:
        raise ValueError(text)
    return Path(text)


def _prefix(text: str) -> str:
    if not _is_word(text):
        raise ValueError(text)
    return text


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run devices until cancelled; see ``catalog.ServeFunction``. The port is that of the hub on this machine.

    Known ``extra`` names: url (with {device_id} in its path; default ws://127.0.0.1:PORT/ws/device/{device_id}),
    devices (count, 1 to 1000), prefix (of the ids, ``ems_``), token (may hold {device_id}), rich (optional groups, yes
    or no), ca and pin (PEM files for wss), soc (percent), day_s, retry_s, retry_most_s, time_scale (numbers).
    """
    found = read_extra(
        options.extra,
        {
            "url": str,
            "devices": count,
            "prefix": _prefix,
            "token": str,
            "rich": yes,
            "ca": _path,
            "pin": _path,
            "soc": seconds,
            "day_s": seconds,
            "retry_s": seconds,
            "retry_most_s": seconds,
            "time_scale": seconds,
        },
    )
    if options.port:
        found.setdefault("url", f"ws://127.0.0.1:{options.port}{DEVICE_PATH}")
    ids = device_ids(found.pop("devices", 1), found.pop("prefix", "ems_"))
    found["is_rich"] = found.pop("rich", False)
    async with EmsEdgeSimulator(EdgeConfig(ids=ids, seed=options.seed, faults=options.faults, **found)) as sim:
        announce(
            {
                "sim": sim.name,
                "host": sim.host,
                "port": sim.port,
                "url": sim.config.url,
                "devices": len(ids),
                "first": ids[0],
                "last": ids[-1],
            }
        )
        await asyncio.get_running_loop().create_future()
