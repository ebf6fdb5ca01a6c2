"""The window's event loop against plain asyncio: early delays, live timers, busy connections.

python tests/bench/bench_loop.py [--quick]        prints one JSON object; exit status 1 when a budget is missed
Both loops run in processes of their own against the same echo server, in turns; medians count.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(ROOT))

MESSAGE = b"\x7e" + bytes(62) + b"\x7e"
CONNECTIONS = 50
COMMANDS = 10_000
COMMAND_TIMEOUT_S = 30.0
LIVE_TIMERS = 100
BUSY_BUDGET = 0.5
KINDS = ("asyncio", "window")


class Echo(asyncio.Protocol):
    """Counts echoed bytes; ``ask`` resolves when a whole message is back."""

    def __init__(self) -> None:
        self.missing = 0
        self.answer: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing <= 0 and self.answer is not None and not self.answer.done():
            self.answer.set_result(None)

    def ask(self) -> asyncio.Future[None]:
        assert self.transport is not None
        self.missing = len(MESSAGE)
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(MESSAGE)
        return self.answer


async def busy(port: int, seconds: float) -> tuple[float, float]:
    """Messages a second, and messages a second of processor time, over many connections in ping-pong.

    The second is the one to trust where the echo server or a neighbour takes the other core.
    """
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Echo, "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]

    async def play(client: Echo, until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            await client.ask()
            count += 1
        return count

    await play(clients[0], time.perf_counter() + 0.1)
    start, start_cpu = time.perf_counter(), time.process_time()
    counts = await asyncio.gather(*(play(client, start + seconds) for client in clients))
    rate = sum(counts) / (time.perf_counter() - start)
    cpu_rate = sum(counts) / (time.process_time() - start_cpu)
    for client in clients:
        assert client.transport is not None
        client.transport.close()
    return rate, cpu_rate


async def delays(count: int) -> tuple[int, float]:
    """How many delays ended early, and the 99th percentile of being late in ms."""
    late: list[float] = []

    async def one(delay: float) -> None:
        start = time.monotonic()
        await asyncio.sleep(delay)
        late.append((time.monotonic() - start - delay) * 1000)

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(one(0.0005 + n * 0.00071))
    for n in range(20):
        await one(0.003 + n * 0.0007)
    late.sort()
    return sum(ms < 0 for ms in late), late[int(len(late) * 0.99)]


async def commands() -> None:
    for _ in range(COMMANDS):
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            await asyncio.sleep(0)


async def turns(count: int = 4000) -> float:
    start = time.perf_counter()
    for _ in range(count):
        await asyncio.sleep(0)
    return (time.perf_counter() - start) / count * 1e6


async def suite(port: int, quick: bool) -> dict[str, float]:
    loop: Any = asyncio.get_running_loop()
    fresh = await turns()
    early, late = await delays(300 if quick else 1000)
    await commands()
    live = len(loop._scheduled)
    after = await turns()
    rate, cpu_rate = await busy(port, 0.5 if quick else 1.5)
    return {
        "early": early,
        "late_p99_ms": late,
        "live": live,
        "turn_us": fresh,
        "turn_after_us": after,
        "busy": rate,
        "busy_cpu": cpu_rate,
    }


def child(kind: str, port: int, quick: bool) -> dict[str, float]:
    if kind == "asyncio":
        return asyncio.run(suite(port, quick))
    from PySide6.QtWidgets import QApplication

    from ui.event_loop import EventLoop

    loop = EventLoop(QApplication([]))
    asyncio.set_event_loop(loop)
    try:
        found: dict[str, float] = loop.run_until_complete(suite(port, quick))
        return found
    finally:
        loop.close()


def serve() -> None:
    """An echo server on a port of its own, which it prints."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                client, _address = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(client, selectors.EVENT_READ)
                continue
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            try:
                data = peer.recv(262144)
            except OSError:
                data = b""
            if data:
                peer.sendall(data)
            else:
                selector.unregister(peer)
                peer.close()


def item(name: str, value: float, bound: float, ratio: float, budget: float, ok: bool) -> dict[str, Any]:
    rounded = {"value": round(value, 3), "bound": round(bound, 3), "ratio": round(ratio, 4)}
    return {"name": name, **rounded, "budget": budget, "ok": ok}


def main() -> int:
    quick = "--quick" in sys.argv
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        for _ in range(1 if quick else 3):
            for kind in KINDS:
                arguments = [sys.executable, __file__, "--child", kind, port, *(["--quick"] if quick else [])]
                done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
                runs[kind].append(json.loads(done.stdout.splitlines()[-1]))
    finally:
        server.kill()
        server.wait()
    plain, ours = ({key: statistics.median(run[key] for run in runs[kind]) for key in runs[kind][0]} for kind in KINDS)
    early = max(run["early"] for run in runs["window"])
    live = max(run["live"] for run in runs["window"])
    turn = ours["turn_after_us"] / ours["turn_us"]
    late = ours["late_p99_ms"] - plain["late_p99_ms"]
    items = [
        item("delays that end early", early, 0, early, 0, early == 0),
        item("late p99 ms beyond asyncio", ours["late_p99_ms"], plain["late_p99_ms"], late, 3.0, late <= 3.0),
        item(f"live timers after {COMMANDS} commands", live, LIVE_TIMERS, live / LIVE_TIMERS, 1.0, live <= LIVE_TIMERS),
        item("one turn us, after those commands", ours["turn_after_us"], ours["turn_us"], turn, 1.5, turn <= 1.5),
        *(
            item(
                f"messages a {unit}, {CONNECTIONS} links",
                ours[key],
                plain[key],
                ratio,
                BUSY_BUDGET,
                ratio >= BUSY_BUDGET,
            )
            for unit, key in (("second", "busy"), ("second of processor time", "busy_cpu"))
            for ratio in (ours[key] / plain[key],)
        ),
    ]
    ok = all(each["ok"] for each in items)
    print(json.dumps({"bench": "loop", "items": items, "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve()
    elif "--child" in sys.argv:
        at = sys.argv.index("--child")
        print(json.dumps(child(sys.argv[at + 1], int(sys.argv[at + 2]), "--quick" in sys.argv)), flush=True)
    else:
        sys.exit(main())
