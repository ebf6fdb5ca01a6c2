"""What simulators stand on: simulated time, faults on demand, one small HTTP server with faults, values given as text.

The LEM meter has a server of its own: it speaks TLS and misbehaves on every byte.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Self
from urllib.parse import parse_qsl

import h11

from app.errors import ConfigError, LinkError, LinkReason

HOST: Final = "127.0.0.1"  # a simulator is never offered to the network
MAX_BODY: Final = 1 << 20
MAX_CONNECTIONS: Final = 256
REQUEST_S: Final = 30.0  # a request has to arrive in this time, else the connection is closed
CLOSE_S: Final = 5.0  # longest wait for the peer to take the rest of an answer

# ----------------------------------------------------------------------------------------------------------------- time


class SimClock:
    """Simulated time: ``time_scale`` times as fast as ``monotonic`` (seconds), from ``start`` (aware; None: now).

    With ``time_scale`` 0 it stands still and only ``advance`` moves it. ``sleep`` ends at once when ``advance`` passes
    its end, so that a test never waits.

    Raises:
        ConfigError: a scale below 0, or a start without a zone.
    """

    def __init__(
        self,
        *,
        time_scale: float = 1.0,
        start: datetime | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (math.isfinite(time_scale) and time_scale >= 0):
            raise ConfigError("Time cannot run like that.", key="time_scale", expected="0 or more")
        if start is not None and start.tzinfo is None:
            raise ConfigError("The time has no zone.", key="start", expected="an aware time")
        self.start = (start or datetime.now(UTC)).astimezone(UTC)
        self._scale = time_scale
        self._monotonic = monotonic
        self._origin = monotonic()
        self._skipped = 0.0
        self._jumped = asyncio.Event()

    @property
    def elapsed(self) -> float:
        """Simulated seconds since the start."""
        return (self._monotonic() - self._origin) * self._scale + self._skipped

    @property
    def now(self) -> datetime:
        """Simulated time, UTC."""
        return self.start + timedelta(seconds=self.elapsed)

    def advance(self, seconds: float) -> None:
        """Let simulated time jump forward; call it from the loop that runs the simulators."""
        self._skipped += seconds
        passed, self._jumped = self._jumped, asyncio.Event()
        passed.set()

    async def sleep(self, seconds: float) -> None:
        """Return after so many simulated seconds; 0 gives others a turn."""
        end = self.elapsed + seconds
        while (left := end - self.elapsed) > 1e-9:
            wait = max(left / self._scale, 0.0005) if self._scale else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._jumped.wait()
        await asyncio.sleep(0)


# --------------------------------------------------------------------------------------------------------------- faults

Check = Callable[[str], bool]
Struck = Callable[[str], str | None]
"""Value of the fault of that name if it strikes here and now, else None."""


def is_empty(text: str) -> bool:
    return not text


def is_seconds(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) is not None


def is_http_status(text: str) -> bool:
    return re.fullmatch(r"[2-5][0-9]{2}", text) is not None


def is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", text) is not None


def one_of(*values: str) -> Check:
    return lambda text: text in values


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One fault: what it does, its value when none is given. ``lasting``: a state without scope and count."""

    help: str
    default: str = ""
    check: Check = is_empty
    lasting: bool = False


FAULT_SYNTAX: Final = "name[=value][@METHOD/path or @meter][#count], for example late=5@47000000019#2"
_SPEC: Final = re.compile(
    r"(?P<name>[a-z0-9-]+)(?:=(?P<value>[^@#]*))?(?:@(?P<scope>[A-Za-z0-9/_.-]+))?(?:#(?P<count>[0-9]{1,9}))?"
)


def fault_help(kinds: Mapping[str, FaultKind]) -> dict[str, str]:
    """Name -> help, for ``sim list`` and ``--help``."""
    return {name: kind.help + (f" (default {kind.default})" if kind.default else "") for name, kind in kinds.items()}


@dataclass(slots=True)
class _Fault:
    name: str
    value: str
    scope: str
    left: int | None  # how often it still strikes; None: always

    def text(self) -> str:
        count = "" if self.left is None else f"#{self.left}"
        return f"{self.name}{'=' if self.value else ''}{self.value}{'@' if self.scope else ''}{self.scope}{count}"

    def meets(self, where: Iterable[str]) -> bool:
        return not self.scope or any(place == self.scope or place.startswith(f"{self.scope}/") for place in where)


class Faults:
    """The faults in force, settable at run time; ``changed`` is called after every change."""

    def __init__(self, kinds: Mapping[str, FaultKind], changed: Callable[[], None] = lambda: None) -> None:
        self._kinds = kinds
        self._active: list[_Fault] = []
        self._changed = changed

    def set(self, spec: str) -> None:
        """Put a fault in force, see ``FAULT_SYNTAX``. The same fault with the same scope is replaced.

        Without a value the fault's default holds; without scope it strikes everywhere, without count every time.

        Raises:
            ConfigError: unknown fault, value outside its range, or scope or count for a lasting one.
        """
        match = _SPEC.fullmatch(spec.strip())
        kind = self._kinds.get(match["name"]) if match else None
        if match is None or kind is None:
            raise ConfigError(f"{spec!r} is not a fault.", key="fault", expected=f"{FAULT_SYNTAX}; see sim list")
        name, scope = match["name"], match["scope"] or ""
        value = kind.default if match["value"] is None else match["value"]
        if not kind.check(value):
            raise ConfigError(f"{value!r} is not a value for this fault.", key=f"fault {name}", expected=kind.help)
        count = int(match["count"]) if match["count"] else None
        if kind.lasting and (scope or count is not None):
            raise ConfigError("This fault takes no scope and no count.", key=f"fault {name}", expected="name[=value]")
        self._active = [fault for fault in self._active if (fault.name, fault.scope) != (name, scope)]
        if count != 0:
            self._active.append(_Fault(name, value, scope, count))
        self._changed()

    def clear(self, *names: str) -> None:
        """End these faults, or all when none is named.

        Raises:
            ConfigError: unknown fault.
        """
        for name in names:
            if name not in self._kinds:
                raise ConfigError(f"{name!r} is not a fault.", key="fault", expected="see sim list")
        self._active = [fault for fault in self._active if names and fault.name not in names]
        self._changed()

    def active(self) -> list[str]:
        """The faults in force, in the syntax of ``set``, with the counts that are left."""
        return [fault.text() for fault in self._active]

    def value(self, name: str) -> str | None:
        """Value of a lasting fault, None when it is not in force."""
        return next((fault.value for fault in self._active if fault.name == name), None)

    def take(self, name: str, *where: str) -> str | None:
        """Value of the fault if it strikes at one of these places, else None. Counts down, and ends it at 0."""
        for fault in self._active:
            if fault.name == name and fault.meets(where):
                if fault.left is not None:
                    fault.left -= 1
                    if not fault.left:
                        self._active.remove(fault)
                return fault.value
        return None


# ---------------------------------------------------------------------------------------------------------- HTTP server

WIRE_FAULTS: Final[Mapping[str, FaultKind]] = {
    "no-answer": FaultKind("take the request, carry nothing out, never answer"),
    "http-error": FaultKind("answer with this status, nothing carried out", "500", is_http_status),
    "slow-accept": FaultKind("carry out at once, answer this many seconds late", "15", is_seconds),
    "lose-answer": FaultKind("carry out, then close without an answer"),
    "reset": FaultKind("carry out, send half of the body, then reset the connection"),
    "html": FaultKind(
        "an HTML page with status 200, nothing carried out; with =after it is carried out", "", one_of("", "after")
    ),
    "not-json": FaultKind("carry out, answer with text that is no JSON"),
}
HTML_PAGE: Final = "<!DOCTYPE html><html><head><title>Service</title></head><body><h1>Please wait</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; header names in lower case. ``target``: path and query as they were written."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    target: str = ""

    def json(self) -> Any:
        """The body's value, None when it is no JSON."""
        try:
            return json.loads(self.body, parse_float=Decimal)
        except (ValueError, RecursionError):
            return None


@dataclass(slots=True)
class Answer:
    """What is sent back; ``text`` replaces the JSON of ``value``, ``raw`` is all of it with its head (b"": nothing)."""

    status: int = 200
    value: object = None
    text: str | None = None
    content_type: str = "application/json"
    raw: bytes | None = None


class HttpSim:
    """A small HTTP/1.1 server with faults, one request per connection: ``async with sim``, then ``sim.url`` answers.

    ``requests`` holds the last 1000 requests. Change faults from the loop that runs the simulator. A subclass gives
    ``_answer``; its background work goes through ``_spawn`` and ends with the context.

    Raises (on entering):
        ConfigError: a fault is wrong. LinkError: the port cannot be opened.
    """

    host: Final = HOST

    def __init__(
        self,
        name: str,
        kinds: Mapping[str, FaultKind],
        *,
        port: int,
        faults: tuple[str, ...],
        clock: SimClock,
        control: bool,
    ) -> None:
        self.name = name
        self.port = port
        self._first_faults = faults
        self.clock = clock
        self.faults = Faults(kinds, self._faults_changed)
        self.requests: deque[Request] = deque(maxlen=1000)
        self.request_count = 0
        self._kinds = kinds
        self._control = control
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()

    # -- for the subclass

    async def _answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def _subjects(self, request: Request) -> tuple[str, ...]:
        """The meters a request is about, for the scope of a fault."""
        return ()

    def _faults_changed(self) -> None:
        self._notify()

    def _error(self, status: int) -> object:
        """Body of an ``http-error``."""
        return {"Message": "fault on demand"}

    def _refusal(self, status: int) -> Answer:
        """Answer to what is no request (400) or has too large a body (413)."""
        return Answer(400, {"message": "not HTTP"})

    async def _started(self) -> None:
        """Called once inside the task group, after the port is open."""

    def _notify(self) -> None:
        """Something that ``wait_until`` may look at has changed."""
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._group is None:
            work.close()
            raise RuntimeError("the simulator is not running")
        task = self._group.create_task(work, name=f"{self.name}:{self.port}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- life

    async def __aenter__(self) -> Self:
        for spec in self._first_faults:
            self.faults.set(spec)
        try:
            self._server = await asyncio.start_server(self._accept, self.host, self.port)
        except OSError as exc:
            raise LinkError(
                f"The simulator cannot listen on {self.host}:{self.port} ({exc.strerror}). "
                "Choose another port, or 0 for a free one.",
                LinkReason.BUSY,
                may_have_arrived=False,
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(self._cancel)
            await self._started()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _cancel(self) -> None:
        if self._server is not None:
            self._server.close()
        self._group = None  # whoever comes now is turned away
        for task in list(self._tasks):
            task.cancel()

    async def _stop(self) -> None:
        self._group = None
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            abort(writer)
        for _ in range(2):  # transports close their sockets in the loop's next rounds
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return f"http://{self.host}:{self.port}"

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at after every request, event and effect. No deadline."""
        while not condition():
            await self._changed.wait()

    # -- one connection, one request

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._group is None or len(self._writers) >= MAX_CONNECTIONS:
            abort(writer)
            return
        self._writers.add(writer)
        self._spawn(self._connection(reader, writer), "connection")

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):  # the peer went away or was too slow; its own affair
                await self._serve(reader, writer)
                writer.close()
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()
        finally:
            self._writers.discard(writer)
            abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await _read_request(reader)
        except h11.RemoteProtocolError as exc:
            writer.write(_render(self._refusal(exc.error_status_hint)))
            return
        if request is None:
            return
        if self._control and request.path == "/_sim/faults":
            writer.write(_render(self._control_answer(request)))
            return
        struck = self._arrived(request)
        if struck("no-answer") is not None:
            while await reader.read(4096):
                pass
            return
        if (status := struck("http-error")) is not None:
            writer.write(_render(Answer(int(status), self._error(int(status)))))
            return
        page = struck("html")
        answer = Answer() if page == "" else await self._answer(request)
        if page is not None:
            answer = Answer(200, text=HTML_PAGE, content_type="text/html; charset=utf-8")
        elif struck("not-json") is not None:
            answer.text = '{"result": ['
        if (late := struck("slow-accept")) is not None:
            await self.clock.sleep(float(late))
        data = _render(answer)
        if struck("lose-answer") is not None:
            return
        if struck("reset") is not None:
            writer.write(data[: len(data) - 1 - len(data) // 4])
            await writer.drain()
            reset(writer)
            return
        writer.write(data)
        await writer.drain()

    def _arrived(self, request: Request) -> Struck:
        """Count a request in; the faults that strike it."""
        self.requests.append(request)
        self.request_count += 1
        self._notify()
        where = (request.path, f"{request.method}{request.path}", *self._subjects(request))
        return lambda name: self.faults.take(name, *where)

    async def ask(self, request: Request) -> Answer | None:
        """The answer to a request that came by another door than HTTP; None: there is none.

        Of the faults of the wire only ``no-answer``, ``slow-accept`` and ``lose-answer`` (None, carried out) strike.
        """
        struck = self._arrived(request)
        if struck("no-answer") is not None:
            return None
        answer = await self._answer(request)
        if (late := struck("slow-accept")) is not None:
            await self.clock.sleep(float(late))
        return None if struck("lose-answer") is not None else answer

    def _control_answer(self, request: Request) -> Answer:
        """``{"set": ["late=2"], "clear": ["silence"]}``; clear ``["*"]`` ends all; clear comes first."""
        body = request.json() if request.method == "POST" else {}
        try:
            wanted: list[Any] = [body.get(name, []) for name in ("clear", "set")] if isinstance(body, dict) else [None]
            if not all(isinstance(item, list) and all(isinstance(text, str) for text in item) for item in wanted):
                return Answer(422, {"detail": "expected lists of texts named set and clear"})
            for name in wanted[0]:
                self.faults.clear(*(() if name == "*" else (name,)))
            for spec in wanted[1]:
                self.faults.set(spec)
        except ConfigError as exc:
            return Answer(422, {"detail": str(exc)})
        return Answer(200, {"active": self.faults.active(), "known": fault_help(self._kinds)})


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """One whole request; None when the peer closed without one. Raises h11.RemoteProtocolError."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise h11.RemoteProtocolError("body too large", 413)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            target = head.target.decode("latin-1")
            path, _, query = target.partition("?")
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
            return Request(head.method.decode("ascii"), path, dict(parse_qsl(query)), headers, bytes(body), target)
        else:
            return None


REASONS: Final[Mapping[int, str]] = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 409: "Conflict", 500: "Internal Server Error",
}  # fmt: skip


def _render(answer: Answer) -> bytes:
    if answer.raw is not None and answer.text is None:
        return answer.raw
    text = json.dumps(answer.value, default=_plain, ensure_ascii=False) if answer.text is None else answer.text
    body = text.encode()
    return (
        f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode("latin-1") + body


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset instead of an orderly end."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    abort(writer)


def abort(writer: asyncio.StreamWriter) -> None:
    """Cut the connection. Python before 3.11.4 raises when a TLS transport is closed already."""
    with suppress(AttributeError):
        writer.transport.abort()


# -------------------------------------------------------------------------------------------------- command-line values


def yes(text: str) -> bool:
    """``yes`` or ``no`` and the like. Raises ValueError."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def read_extra(extra: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The simulator's own settings of the command line, each read by its function.

    Raises:
        ConfigError: unknown name or bad value.
    """
    found = {}
    for name, text in extra.items():
        if name not in readers:
            raise ConfigError("Unknown setting of the simulator.", key=name, expected="one of " + ", ".join(readers))
        try:
            found[name] = readers[name](text)
        except (ValueError, ArithmeticError):
            raise ConfigError(f"{text!r} is not a value for it.", key=name) from None
    return found


def count(text: str) -> int:
    """A number of meters. Raises ValueError."""
    value = int(text)
    if not 0 <= value <= 1000:
        raise ValueError(text)
    return value


def tcp_port(text: str) -> int:
    """A port, or 0. Raises ValueError."""
    value = int(text)
    if not 0 <= value < 65536:
        raise ValueError(text)
    return value


def seconds(text: str) -> float:
    """A finite number of 0 or more. Raises ValueError."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value
