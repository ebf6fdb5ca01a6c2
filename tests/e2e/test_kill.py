"""``kill -9`` at random moments against the running engine and a simulated meter over real HTTP.

No interaction that was reported as saved is missing, none has a status that its history does not explain, and no
transaction is started twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.status import Status
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator, Recorded
from tests.doubles.lem_double import collect_refused_handshakes

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Meter:
    """A simulated meter on a loop of its own, outliving every life of the engine."""

    port: int = 0
    starts: Counter[str] = field(default_factory=Counter)


class CountingRequests(deque[Recorded]):
    """Counts the starts of each transaction as they come in."""

    def __init__(self, starts: Counter[str]) -> None:
        super().__init__(maxlen=1000)
        self.starts = starts

    def append(self, recorded: Recorded) -> None:
        if recorded.method == "POST":
            self.starts[json.loads(recorded.body)["transactionId"]] += 1
        super().append(recorded)


@contextlib.contextmanager
def meter() -> Iterator[Meter]:
    ready, box = threading.Event(), Meter()
    stop: dict[str, Any] = {}

    async def main() -> None:
        config = LemDcbmConfig(uptime_s=86400, voltage=Decimal(400), current=Decimal(100))
        async with LemDcbmSimulator(config) as sim:
            box.port = sim.port
            stop["loop"], stop["event"] = asyncio.get_running_loop(), asyncio.Event()
            sim.requests = CountingRequests(box.starts)
            ready.set()
            await stop["event"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(30)
    try:
        yield box
    finally:
        stop["loop"].call_soon_threadsafe(stop["event"].set)
        thread.join()


def prepare(path: Path, port: int) -> None:
    writer = LogWriter(path)
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "poll_interval_ms": 200,
        "transaction_retries": 0,
        "initial_retry_delay_ms": 100,
    }
    writer.put(Device(id="lem-1", name="LEM 1", adapter="lem-dcbm", settings=settings))
    writer.close()


def one_life(path: Path, seed: int, lasts_s: float | None) -> set[int]:
    """Run a victim; kill it after ``lasts_s`` seconds from its first words. The ids it reported as saved."""
    command = [sys.executable, "-m", "tests.e2e.victim", str(path), str(seed)]
    if lasts_s is None:
        command.append("1")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stderr is not None
        said: list[str] = []
        if lasts_s is None:
            out, err = victim.communicate(timeout=100)
            assert victim.returncode == 0, err
            said = out.splitlines()
        else:
            first = victim.stdout.readline()
            assert first, victim.stderr.read()
            said.append(first)
            killer = threading.Timer(lasts_s, victim.kill)
            killer.start()
            said += victim.stdout.read().splitlines()
            killer.join()
            victim.wait()
            assert victim.returncode == -9, victim.stderr.read()
    return {int(line.split()[1]) for line in said if line.startswith("saved ") and line.split()[1:]}


def kill_many(tmp_path: Path, times: int, seed: int) -> None:
    collect_refused_handshakes()  # what earlier tests in this process left
    path = tmp_path / "kill.mwk"
    rng = random.Random(seed)
    saved: set[int] = set()
    with meter() as box:
        prepare(path, box.port)
        for number in range(times):
            saved |= one_life(path, number, rng.uniform(0.0, 0.6))
            assert verify(path) == [] or _only_open(path)
        saved |= one_life(path, times, None)
    with contextlib.closing(LogReader(path)) as reader:
        kept: dict[int, Interaction] = {}
        while page := reader.page(after=max(kept, default=0), limit=256):
            kept |= {interaction.id: interaction for interaction in page}
    assert saved <= set(kept), f"reported as saved and missing: {sorted(saved - set(kept))[:10]}"
    assert verify(path) == []
    unsettled = [i for i in kept.values() if not i.is_settled]
    assert unsettled == []
    assert {i.status for i in kept.values()} <= {Status.SUCCESSFUL, Status.FAILED, Status.ABORTED}
    twice = {name: count for name, count in box.starts.items() if count > 1}
    assert twice == {}, f"started twice: {twice}"
    known = {i.params.get("transaction_id") for i in kept.values()}
    assert set(box.starts) <= known, "a transaction was started that the log does not know"


def _only_open(path: Path) -> bool:
    """Between two lives an outbox may be open; anything else is a fault."""
    return all(problem.code == "OPEN_OUTBOX" for problem in verify(path))


def test_killed_a_dozen_times(tmp_path: Path) -> None:
    kill_many(tmp_path, 12, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_two_hundred_times(tmp_path: Path) -> None:
    kill_many(tmp_path, 200, seed=2)
