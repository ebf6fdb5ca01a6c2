"""The TCP server that modules connect to (specs/quecpython-rfc1662.md 6 and 9c): raw payload, no framing, no login.

The port stands in a hostile place: anybody can connect and claim any identity. What a stranger says becomes no more
than a bounded number of rows, and it is closed when it says too much. Every close is a reset, for the stock firmware
takes an orderly one for data and never comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from app.adapters import _quecpython_rules as rules
from app.adapters._live import beside, closed_here
from app.adapters._quecpython_core import Core
from app.adapters._quecpython_payload import Payload, Reassembler
from app.adapters._quecpython_roles import Role, no_answer
from app.errors import LinkError, LinkReason, LocalProtocolError, ParameterError
from app.model.device import Device, NodeKind
from app.model.interaction import Direction
from app.model.reading import LinkState, Severity
from app.ports import Answer, DeliveryFailure, Dispatch, Disposition, Facts, Tap
from app.transports.line import LineOpener
from app.transports.stream_line import StreamLine
from app.transports.tcp_link import TcpListener, TcpStream

MAX_LISTED: Final = 50  # rows of the table of modules in the facts
MAX_GATHERED: Final = 200  # messages of one answer
FROM_MODULE: Final = "from the module"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the port stands."""

    connections: int = 200
    per_address: int = 64
    rows: float = 100.0  # of one connection at once
    rows_per_s: float = 10.0
    stranger_rows: float = 100.0  # of all connections that no device of the tree is behind
    stranger_rows_per_s: float = 2.0
    stranger_octets: float = 1 << 20  # of a connection that no device of the tree is behind
    stranger_octets_per_s: float = 4096.0


@dataclass(eq=False, slots=True)
class _Module:
    """One connection."""

    line: StreamLine
    name: str  # address:port
    connected: datetime
    heard_at: float
    rows: float
    octets: float
    identity: str = ""
    claimed: str = ""  # an identity that another connection has
    child: Device | None = None
    reassembler: Reassembler = field(default_factory=Reassembler)
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[asyncio.Queue[Payload | None]] = field(default_factory=list)
    opened_at: float = 0.0
    counted_at: float = 0.0
    ended: LinkError | None = None
    is_closed_in_order: bool = False
    last_seen: datetime | None = None
    octets_in: int = 0
    octets_out: int = 0
    messages_in: int = 0
    is_asked: bool = False
    asked_until: float = float("-inf")

    def row(self) -> dict[str, Any]:
        """Of the table."""
        return {
            "peer": self.name, "identity": self.identity, "device": self.child.id if self.child is not None else "",
            "connected": self.connected.isoformat(), "octets_in": self.octets_in, "octets_out": self.octets_out,
            "messages_in": self.messages_in, "last_seen": self.last_seen.isoformat() if self.last_seen else None,
        }  # fmt: skip


class ServerRole(Role):
    """Listens; one task for each connection."""

    def __init__(self, core: Core, bounds: Bounds) -> None:
        self.core = core
        self.config = core.config
        self._bounds = bounds
        self._server = next((one for one in core.context.devices if one.kind is NodeKind.GATEWAY), None)
        self._children = [one for one in core.context.devices if one is not self._server]
        self._modules: dict[_Module, None] = {}  # in the order of their coming
        self._shown: dict[str, dict[str, Any]] = {}  # rows of the table as they were told, by connection
        self._is_closed = False
        self._stranger_rows = bounds.stranger_rows
        self._stranger_rows_at = 0.0
        self._listener = TcpListener(
            self.config.host, self.config.port, self._serve, on_refused=self._refused,
            max_connections=bounds.connections, max_per_address=bounds.per_address,
        )  # fmt: skip

    @property
    def listen_port(self) -> int:
        return self._listener.port

    # ---------------------------------------------------------------- life

    def opened(self, open_line: LineOpener) -> AbstractAsyncContextManager[None]:
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        async with self._listener.open():
            where = self._listener.name.removeprefix("tcp ")
            if self._server is not None:
                self.core.link(self._server.id, LinkState.ONLINE, f"Listens on {where}.")
            for child in self._children:
                self.core.link(child.id, LinkState.CONNECTING, f"Waits for the module to connect to {where}.")
            async with beside() as group:
                telling = group.create_task(self._tell_for_ever(), name="table of modules")
                try:
                    yield
                finally:
                    self._is_closed = True
                    telling.cancel()
                    for module in list(self._modules):
                        self._end(module, closed_here())

    async def _tell_for_ever(self) -> None:
        while True:
            self._tell_table()
            await asyncio.sleep(self.core.pace.facts_s)

    def _tell_table(self) -> None:
        rows = {module.name: module.row() for module in self._modules}
        if rows == self._shown:
            return
        before, self._shown = self._shown, rows
        if self._server is not None:
            listed = list(rows.values())[:MAX_LISTED]
            self.core.tell(Facts(self._server.id, {"modules": listed, "modules_connected": len(rows)}))
        for module in self._modules:
            if module.child is not None and rows[module.name] != before.get(module.name):
                self.core.tell(Facts(module.child.id, {"module": rows[module.name]}, is_contact=False))

    # ---------------------------------------------------------------- connections

    def _refused(self, address: str) -> None:
        self.core.warn(
            "CROWDED", address,
            f"Connections from {address} are refused: there are {self._bounds.per_address} from this address or "
            f"{self._bounds.connections} in all already. Look at what runs there.",
        )  # fmt: skip

    async def _serve(self, stream: TcpStream) -> None:
        """One connection, to its end."""
        line = await StreamLine.accepted(stream)
        now = _now()
        module = _Module(
            line, stream.name, self.core.clock.now(), heard_at=now, rows=self._bounds.rows,
            octets=self._bounds.stranger_octets, opened_at=now, counted_at=now,
        )  # fmt: skip
        self._modules[module] = None
        try:
            self._match()
            await self._read(module)
        except LinkError as exc:
            module.ended = module.ended or exc
        finally:
            del self._modules[module]
            if module.is_closed_in_order:
                await line.close()
            if not self._is_closed:
                for payload in module.reassembler.flush():
                    self._message(module, payload)
                self._detach(module)
            self._end(module, closed_here())

    async def _read(self, module: _Module) -> None:
        """Raises LinkError when the connection has ended."""
        pace = self.core.pace
        while module.ended is None:
            wait = None
            if module.reassembler.pending:
                wait = pace.message_s if module.reassembler.knows_end else pace.chunk_s
            elif self._is_to_ask(module):
                wait = max(0.001, module.opened_at + pace.poll_after_s - _now())
            try:
                data = await module.line.read(wait)
            except TimeoutError:
                if module.reassembler.pending:
                    self._take(module, module.reassembler.flush())
                else:
                    await self._ask_identity(module)
                continue
            module.heard_at = _now()
            module.last_seen = self.core.clock.now()
            module.octets_in += len(data)
            if not self._may_say(module, len(data)):
                self._hang_up(module)
                return
            self._take(module, module.reassembler.feed(data))
            await asyncio.sleep(0)  # one that never stops sending leaves the others their turns

    def _is_to_ask(self, module: _Module) -> bool:
        return bool(self.config.poll) and not module.is_asked and not module.identity and not module.claimed

    async def _ask_identity(self, module: _Module) -> None:
        module.is_asked = True
        module.asked_until = _now() + self.core.pace.poll_answer_s
        await self._write(module, self.config.poll, self.core.context.tap)

    def _may_say(self, module: _Module, octets: int) -> bool:
        """Refill the allowances of a connection, and take ``octets`` from a stranger's."""
        bounds, now = self._bounds, _now()
        passed = now - module.counted_at
        module.counted_at = now
        module.rows = min(bounds.rows, module.rows + passed * bounds.rows_per_s)
        module.octets = min(bounds.stranger_octets, module.octets + passed * bounds.stranger_octets_per_s)
        if module.child is not None:
            return True
        module.octets -= octets
        return module.octets >= 0

    def _hang_up(self, module: _Module) -> None:
        self.core.warn(
            "FLOOD", module.line.peer,
            f"{module.line.peer} sends more than a module does, and no device of the tree is behind it; its connection "
            "was closed. Look at what runs there, or enter its identity or address in a device below the server.",
        )  # fmt: skip
        self._end(module, closed_here())

    def _end(self, module: _Module, exc: LinkError) -> None:
        """Close with a reset, unless it is closed already, and tell who waits."""
        module.ended = module.ended or exc
        if not module.is_closed_in_order:
            module.line.abort()
        for queue in module.waiting:
            queue.put_nowait(None)

    # ---------------------------------------------------------------- who it is

    def _identify(self, module: _Module, identity: str) -> None:
        if module.identity == identity:
            return
        old = next((one for one in self._modules if one is not module and one.identity == identity), None)
        if old is not None:
            if old.line.peer != module.line.peer and _now() - old.heard_at < self.core.pace.stale_s:
                module.claimed = identity
                self.core.warn(
                    "IDENTITY_CLAIMED", f"{identity} {module.line.peer}",
                    f"{module.line.peer} says that it is {identity}, which is connected from {old.line.peer}. It is "
                    "not taken for it as long as that connection stands and speaks. If the module has moved, drop its "
                    "old connection.",
                    device=old.child.id if old.child is not None else "",
                )  # fmt: skip
                return
            self._detach(old)
            self._end(old, LinkError("The module has connected anew.", LinkReason.CLOSED))
        module.identity, module.claimed = identity, ""
        if module.child is not None and not self._fits(module.child, module):
            self._detach(module)
        self._match()

    def _fits(self, child: Device, module: _Module) -> int:
        """How well a connection fits a device: 0 not at all."""
        wanted = str(self.core.context.settings_of(child.id)["identity"]).strip()
        if not wanted:
            return 1 if len(self._children) == 1 and not module.claimed else 0
        if wanted == module.identity:
            return 4
        if wanted == module.name:
            return 3
        return 2 if wanted == module.line.peer and not module.claimed else 0

    def _match(self) -> None:
        """Give each device the connection that fits it best, the newest of equals."""
        for child in self._children:
            present = next((one for one in self._modules if one.child is child), None)
            best = present
            for module in self._modules:
                if module.ended is not None or (module.child is not None and module.child is not child):
                    continue
                fit = self._fits(child, module)
                least = self._fits(child, best) if best is not None else 0
                if fit > least or (fit > 1 and fit == least):
                    best = module
            if best is None or best is present:
                continue
            if present is not None:
                present.child = None
            best.child = child
            self.core.link(child.id, LinkState.ONLINE, f"Connected from {best.name}.")

    def _detach(self, module: _Module) -> None:
        child, module.child = module.child, None
        if child is None:
            return
        since = self.core.clock.now().astimezone().strftime("%H:%M:%S")
        why = str(module.ended) if module.ended is not None else "The connection ended."
        text = f"The module's connection is gone since {since}: {why} It connects again by itself."
        self.core.link(child.id, LinkState.FAULT, text)
        self._match()

    # ---------------------------------------------------------------- messages

    def _take(self, module: _Module, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            self._message(module, payload)

    def _message(self, module: _Module, payload: Payload) -> None:
        module.messages_in += 1
        if payload.identity:
            self._identify(module, payload.identity)
        elif payload.kind in ("login", "heartbeat"):
            pass  # without a number it is nobody's, and no answer either
        elif module.asked_until > _now() and (digits := rules.digits_in(payload)):
            module.asked_until = float("-inf")
            self._identify(module, digits)
        elif module.waiting:
            module.waiting[0].put_nowait(payload)
            return
        if module.child is None:
            self._tell_stranger(module)
        if module.rows < 1 or not self._has_room(module):
            self.core.warn(
                "MESSAGE_FLOOD", module.line.peer,
                f"{module.name} sends messages faster than they are kept; the further ones get no row and no frame.",
                device=module.child.id if module.child is not None else "",
            )  # fmt: skip
            return
        module.rows -= 1
        self.core.context.tap(Direction.IN, payload.data, payload.kind, link=self._link(module))
        whose = module.child or self._server
        name = {"login": "LOGIN", "heartbeat": "HEARTBEAT"}.get(payload.kind, "PAYLOAD")
        result = {**rules.payload_result(payload, FROM_MODULE), "peer": module.name, "identity": module.identity}
        self.core.report(name, result, device=whose.id if whose is not None else "")

    def _has_room(self, module: _Module) -> bool:
        """Whether a row is left for it: strangers share theirs, so that they cannot push those of devices out."""
        if module.child is not None or not self._children:
            return True
        bounds, now = self._bounds, _now()
        passed, self._stranger_rows_at = now - self._stranger_rows_at, now
        self._stranger_rows = min(bounds.stranger_rows, self._stranger_rows + passed * bounds.stranger_rows_per_s)
        if self._stranger_rows < 1:
            return False
        self._stranger_rows -= 1
        return True

    def _tell_stranger(self, module: _Module) -> None:
        """A module that no device fits is normal; it is said once for each address."""
        self.core.warn(
            "UNKNOWN_MODULE", module.line.peer,
            f"A module is connected from {module.line.peer} that no device of the tree stands for. Enter its identity "
            "or address in a device below the server.",
            severity=Severity.INFO,
        )  # fmt: skip

    def _link(self, module: _Module) -> str:
        return f"module {module.name}"

    async def _write(self, module: _Module, payload: bytes, tap: Tap) -> int:
        """In writes of at most the set size. Returns how many. Raises LinkError."""
        size = self.config.split
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(self.config.pause_s)
            tap(Direction.OUT, piece, "", link=self._link(module))
            await module.line.write(piece)
            module.octets_out += len(piece)
        return len(pieces)

    # ---------------------------------------------------------------- commands

    async def submit(self, request: Dispatch) -> Answer:
        params = request.params
        if request.spec.name == "LIST_MODULES":
            rows = [module.row() for module in self._modules]
            return Answer(result={"summary": f"{len(rows)} modules are connected", "modules": rows})
        module = self._of(request)
        match request.spec.name:
            case "SEND":
                payload = rules.payload_of(params["data"], "data")
                wait_ms = params["wait_ms"]
                return await self._send(module, payload, params["await_answer"], wait_ms, request.tap)
            case "POLL_SERIAL":
                return await self._poll(module, request.tap)
            case "DROP_MODULE":
                self._drop(module)
                text = f"The connection of {module.name} was closed with a reset."
                return Answer(result={"summary": text}, text=text)
            case "CLOSE_IN_ORDER":
                module.ended = LinkError("It was closed in order from here.", LinkReason.CLOSED)
                module.is_closed_in_order = True
                await module.line.close()
                text = f"The connection of {module.name} was closed in order. {rules.FIN_WARNING}"
                return Answer(result={"summary": text}, text=text)
            case name:
                raise LocalProtocolError(f"The server has no command {name}.")

    def _drop(self, module: _Module) -> None:
        self._end(module, LinkError("It was dropped from here.", LinkReason.CLOSED))

    def _of(self, request: Dispatch) -> _Module:
        """The module a command is for. Raises DeliveryFailure."""
        if request.device is not self._server and request.device.kind is not NodeKind.GATEWAY:
            found = [one for one in self._modules if one.child is not None and one.child.id == request.device.id]
            what = f"The module of {request.device.name} is not connected."
        else:
            wanted = str(request.params.get("module") or "").strip()
            found = [one for one in self._modules if wanted in ("", one.identity, one.name, one.line.peer)]
            what = f"No module {wanted} is connected." if wanted else "No module is connected."
        found = [one for one in found if one.ended is None]
        if not found:
            raise DeliveryFailure("NOT_CONNECTED", f"{what} It connects by itself.", Disposition.FINAL)
        if len(found) > 1:
            text = f"{len(found)} modules fit. Name one by its identity or address:port."
            raise DeliveryFailure("SEVERAL_MODULES", text, Disposition.FINAL)
        return found[0]

    async def _send(self, module: _Module, payload: bytes, is_awaited: bool, wait_ms: int, tap: Tap) -> Answer:
        first_s = wait_ms / 1000 if wait_ms else max(self.config.timeout_s, self.core.pace.server_least_s)
        async with module.sending:
            if module.ended is not None:
                raise LinkError(str(module.ended), LinkReason.CLOSED, may_have_arrived=False)
            writes, found = await self._exchange(module, payload, first_s if is_awaited else 0.0, tap)
        result: dict[str, Any] = {
            "summary": f"{len(payload)} octets sent in {writes} writes", "sent": payload.hex(), "writes": writes,
            "peer": module.name,
        }  # fmt: skip
        if not is_awaited:
            return Answer(result=result)
        result |= payloads_result(found)
        if not found:
            return no_answer(f"{len(payload)} octets were sent, and nothing came back within {first_s:g} s.", result)
        result["summary"] = f"{len(payload)} octets sent, {sum(len(one.data) for one in found)} came back"
        return Answer(result=result)

    async def _exchange(self, module: _Module, payload: bytes, first_s: float, tap: Tap) -> tuple[int, list[Payload]]:
        """Write, and take what comes: the first message within ``first_s``, further ones right behind it."""
        queue: asyncio.Queue[Payload | None] = asyncio.Queue()
        found: list[Payload] = []
        if first_s:
            module.waiting.append(queue)
        try:
            writes = await self._write(module, payload, tap)
            wait = first_s
            while wait and len(found) < MAX_GATHERED:
                try:
                    async with asyncio.timeout(wait):
                        one = await queue.get()
                except TimeoutError:
                    break
                if one is None:
                    if found:
                        break
                    raise module.ended or closed_here()
                tap(Direction.IN, one.data, one.kind, link=self._link(module))
                found.append(one)
                wait = self.core.pace.gather_s
        finally:
            with contextlib.suppress(ValueError):
                module.waiting.remove(queue)
        return writes, found

    async def _poll(self, module: _Module, tap: Tap) -> Answer:
        if not self.config.poll:
            raise ParameterError("Enter under Identify by asking what is to be sent.", "poll")
        async with module.sending:
            _writes, found = await self._exchange(module, self.config.poll, self.core.pace.poll_answer_s, tap)
        digits = identity_of(found)
        if not digits:
            return no_answer(f"{module.name} did not say a number within {self.core.pace.poll_answer_s:g} s.", {})
        self._identify(module, digits)
        taken = module.identity == digits
        text = f"{module.name} is {digits}." if taken else f"{module.name} says {digits}, which another connection has."
        return Answer(result={"summary": text, "identity": digits, "taken": taken}, text=text)


def payloads_result(found: Sequence[Payload]) -> dict[str, Any]:
    """What came back from a module."""
    answer = b"".join(one.data for one in found)
    return {
        "answer": answer.hex(), "text": answer.decode("latin-1"),
        "messages": [rules.payload_result(one, FROM_MODULE) for one in found],
    }  # fmt: skip


def identity_of(found: Sequence[Payload]) -> str:
    """The number in the answers to the poll; "" for none."""
    return next((text for one in found if (text := rules.digits_in(one))), "")


def _now() -> float:
    return asyncio.get_running_loop().time()
