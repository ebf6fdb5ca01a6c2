"""Running the program as a person would: subprocesses, real sockets, no terminal."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.lem_double import collect_refused_handshakes

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """What one run of the command line left."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON objects of stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines() if line.strip()]

    @property
    def record(self) -> dict[str, Any]:
        (only,) = self.records
        return only


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``meterwright WORDS`` with a profile of its own."""

    def go(*words: object, stdin: str = "", expect: int | None = 0) -> Ran:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("METERWRIGHT")}
        done = subprocess.run(
            [sys.executable, "-m", "ui", "--profile", str(tmp_path / "profile"), *map(str, words)],
            check=False,
            cwd=ROOT,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if expect is not None:
            assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)

    return go


LOOPS: dict[int, asyncio.AbstractEventLoop] = {}  # by id, of what runs in a thread


@contextmanager
def in_thread(enter: Callable[[], Any]) -> Iterator[Any]:
    """Run an async context manager on a loop of its own thread."""
    ready, box = threading.Event(), dict[str, Any]()

    async def main() -> None:
        async with enter() as value:
            box.update(value=value, loop=asyncio.get_running_loop(), stop=asyncio.Event())
            ready.set()
            await box["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(30)
    try:
        LOOPS[id(box["value"])] = box["loop"]
        yield box["value"]
    finally:
        LOOPS.pop(id(box["value"]), None)
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join()
        box.clear()
        collect_refused_handshakes()
