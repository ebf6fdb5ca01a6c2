"""What the fourteen steps cost: one direct command against the same request with bare httpx, and the throughput of
commands over memory against bare SQLite doing the same durable writes.

``python -m tests.bench.bench_dispatch [--quick]`` prints one JSON object; ratios are from the same run.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.composition import open_session, running
from app.model.command import CommandKind, CommandSpec, ParamSpec
from app.model.device import Device
from app.model.reading import LinkState
from app.model.records import Change
from app.ports import (
    Accepted,
    Adapter,
    AdapterContext,
    Answer,
    Dispatch,
    Limits,
    LinkChange,
    Telemetry,
    Uplink,
)
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator

DURABLE_WRITES = 2  # of one command: before it leaves, and when its outcome is known
QUICK = "--quick" in sys.argv


# ---------------------------------------------------------------- one direct command


async def direct(count: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, _Meter() as port:
        path = Path(folder) / "bench.mwk"
        with open_session(path) as session:
            settings = {"host": "127.0.0.1", "port": port, "poll_interval_ms": 60_000}
            session.workbench.save_device(Device(id="lem-1", name="LEM", adapter="lem-dcbm", settings=settings))
            limits = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(limits=limits, trust_env=False) as client, running(session.workbench):
                await _online(session.workbench, "lem-1")
                bare, ours = [], []
                for _ in range(20):
                    await _one(session.workbench)
                    await _bare(client, port)
                for _ in range(count):  # interleaved, so that both see the same machine
                    begun = time.perf_counter()
                    await _bare(client, port)
                    bare.append(time.perf_counter() - begun)
                    begun = time.perf_counter()
                    await _one(session.workbench)
                    ours.append(time.perf_counter() - begun)
    bound, value = statistics.median(bare), statistics.median(ours)
    return [
        {
            "name": "one direct command, click to terminal status, p50 ms",
            "value": value * 1e3,
            "bound": bound * 1e3,
            "ratio": value / bound,
            "budget": "<= 2.5",
            "ok": value / bound <= 2.5,
        }
    ]


async def _bare(client: httpx.AsyncClient, port: int) -> None:
    answer = await client.get(
        f"http://127.0.0.1:{port}/v1/livemeasure",
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity", "Connection": "close"},
    )
    json.loads(answer.content)


async def _one(workbench: Any) -> None:
    done = await workbench.settled(workbench.submit("lem-1", "READ_LIVE"))
    assert done.status == "SUCCESSFUL", done


async def _online(workbench: Any, device: str) -> None:
    online = asyncio.Event()

    def look(change: Change) -> None:
        if workbench.state(device).link is LinkState.ONLINE:
            online.set()

    leave = workbench.feed.subscribe(look)
    look(workbench.state(device))
    await online.wait()
    leave()


class _Meter:
    """A simulated meter on a loop of its own thread."""

    def __enter__(self) -> int:
        ready = threading.Event()

        async def main() -> None:
            async with LemDcbmSimulator(LemDcbmConfig(uptime_s=86400)) as sim:
                self.port, self.loop, self.stop = sim.port, asyncio.get_running_loop(), asyncio.Event()
                ready.set()
                await self.stop.wait()

        self.thread = threading.Thread(target=lambda: asyncio.run(main()))
        self.thread.start()
        ready.wait(30)
        return self.port

    def __exit__(self, *_exc: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()


# ---------------------------------------------------------------- throughput over memory


class _Instant:
    """AdapterType and adapter of a device that answers at once, in memory."""

    key = "instant"
    title = "Instant"
    summary = ""
    spec = CommandSpec(name="READ", title="Read", kind=CommandKind.READ)

    def form(self) -> tuple[ParamSpec, ...]:
        return ()

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return Limits(max_in_flight=1, needs_link=True)

    def lane(self, device: Device) -> str:
        return device.id

    def connection(self, device: Device) -> str:
        return device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return (self.spec,)

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ()

    def create(self, context: AdapterContext) -> Adapter:
        return _InstantAdapter(context.devices[0].id)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        return []


class _InstantAdapter:
    def __init__(self, device: str) -> None:
        self._device = device

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        yield

    async def uplinks(self) -> AsyncIterator[Uplink]:
        yield LinkChange(self._device, LinkState.ONLINE)
        await asyncio.get_running_loop().create_future()

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        return Answer(result={"value": 1})

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        return None

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        return False

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        return None

    async def verify(self, request: Dispatch) -> Answer | None:
        return None


async def throughput(count: int, devices: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.mwk"
        with open_session(path, adapter_types={"instant": _Instant()}) as session:
            workbench = session.workbench
            for number in range(devices):
                workbench.save_device(Device(id=f"d{number}", name=f"D{number}", adapter="instant"))
            commits = _count_transactions(session.writer)
            async with running(workbench):
                await _online(workbench, f"d{devices - 1}")
                before = commits[0]
                begun = time.perf_counter()
                numbers = [workbench.submit(f"d{n % devices}", "READ") for n in range(count)]
                for number in numbers:
                    await workbench.settled(number)
                session.writer.flush()
                ours = count / (time.perf_counter() - begun)
                transactions = commits[0] - before
        durable = DURABLE_WRITES * count
        bare = _bare_sqlite(path, Path(folder) / "bare.db", transactions=durable, commands=count)
        grouped = _bare_sqlite(path, Path(folder) / "grouped.db", transactions=transactions, commands=count)
    return [
        {
            "name": f"commands a second, memory transport, {devices} devices, {DURABLE_WRITES} durable writes each",
            "value": ours,
            "bound": bare,
            "ratio": ours / bare,
            "budget": ">= 0.3",
            "ok": ours / bare >= 0.3,
        },
        {
            "name": f"the same, bound grouped as our writer does ({transactions} transactions)",
            "value": ours,
            "bound": grouped,
            "ratio": ours / grouped,
            "budget": "stated",
            "ok": True,
        },
    ]


def _count_transactions(writer: Any) -> list[int]:
    """Count the transactions that the writer really makes of the pipeline's calls."""
    counted = [0]
    transaction = writer._transaction

    def counting(calls: Any) -> Any:
        counted[0] += 1
        return transaction(calls)

    writer._transaction = counting
    return counted


def _bare_sqlite(source: Path, target: Path, *, transactions: int, commands: int) -> float:
    """Commands a second when plain sqlite3 writes the same rows, with the same indexes, in as many transactions with
    synchronous=FULL, and does nothing else."""
    tables: list[tuple[str, list[tuple[Any, ...]]]] = []
    with sqlite3.connect(source) as old:
        names = ("interaction", "step", "message", "attempt", "outbox")
        schema = [
            sql
            for sql, table in old.execute("SELECT sql, tbl_name FROM sqlite_master WHERE sql IS NOT NULL")
            if table in names
        ]
        for name in names:
            rows = old.execute(f"SELECT * FROM {name}").fetchall()
            if rows:
                tables.append((name, rows))
    old.close()
    new = sqlite3.connect(target, isolation_level=None)
    new.execute("PRAGMA journal_mode=WAL")
    new.execute("PRAGMA synchronous=FULL")
    for statement in schema:
        new.execute(statement)
    inserts = [
        (f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows, len(rows)) for name, rows in tables
    ]
    begun = time.perf_counter()
    for point in range(transactions):
        new.execute("BEGIN")
        for statement, rows, total in inserts:
            chunk = rows[point * total // transactions : (point + 1) * total // transactions]
            if chunk:
                new.executemany(statement, chunk)
        new.execute("COMMIT")
    took = time.perf_counter() - begun
    new.close()
    return commands / took


def main() -> None:
    items = asyncio.run(direct(60 if QUICK else 300))
    items += asyncio.run(throughput(1000 if QUICK else 5000, 50))
    sys.stdout.write(json.dumps({"bench": "dispatch", "items": items, "ok": all(i["ok"] for i in items)}) + "\n")


if __name__ == "__main__":
    main()
