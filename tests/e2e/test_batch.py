"""A batch to fifty simulated meters over real sockets: 47 succeed, 3 fail and only they are tried again; killed in the
middle it goes on, and no meter is told to start twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openpyxl

from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.device import Device
from app.model.flow import Batch
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator, Recorded
from tests.e2e.conftest import ROOT, Run, in_thread

METERS = 50
BROKEN = (7, 23, 41)  # refuse the first start
REFUSES_ONCE = "http-error=403@POST/v1/legal#1"


@dataclass
class Fleet:
    """Fifty meters that outlive the program. ``starts``: how often each transaction was asked for."""

    ports: list[int] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    begun: threading.Event = field(default_factory=threading.Event)  # set after ``mark`` starts
    mark: int = 10


class Starts(deque[Recorded]):
    """Counts the starts of each transaction as they come in."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(maxlen=10)
        self._fleet = fleet

    def append(self, recorded: Recorded) -> None:
        if recorded.method == "POST":
            self._fleet.starts[json.loads(recorded.body)["transactionId"]] += 1
            if self._fleet.starts.total() >= self._fleet.mark:
                self._fleet.begun.set()
        super().append(recorded)


@asynccontextmanager
async def fifty(broken: tuple[int, ...], delay: str) -> AsyncIterator[Fleet]:
    fleet = Fleet()
    async with AsyncExitStack() as stack:
        for number in range(METERS):
            faults = (REFUSES_ONCE,) if number in broken else (delay,) if delay else ()
            config = LemDcbmConfig(uptime_s=86400, faults=faults, meter_id=f"{number:011}")
            sim = await stack.enter_async_context(LemDcbmSimulator(config))
            sim.requests = Starts(fleet)
            fleet.ports.append(sim.port)
        yield fleet


@contextlib.contextmanager
def fleet_of(tmp_path: Path, broken: tuple[int, ...] = (), delay: str = "") -> Iterator[tuple[Fleet, Path]]:
    """The meters, and a workspace that knows them."""
    with in_thread(lambda: fifty(broken, delay)) as fleet:
        path = tmp_path / "fleet.mwk"
        writer = LogWriter(path)
        for number, port in enumerate(fleet.ports):
            settings = {
                "host": "127.0.0.1", "port": port, "poll_interval_ms": 3_600_000, "transaction_retries": 0,
                "initial_retry_delay_ms": 100,
            }  # fmt: skip
            writer.put(
                Device(id=f"lem-{number}", name=f"Charger {number}", serial=f"{number:011}", adapter="lem-dcbm",
                       settings=settings, position=number)
            )  # fmt: skip
        writer.close()
        yield fleet, path


def table(tmp_path: Path) -> Path:
    """A spreadsheet with a transaction of its own for each meter, by serial number."""
    book = openpyxl.Workbook()
    book.active.append(("Device", "command", "Transaction"))
    for number in range(METERS):
        book.active.append((f"{number:011}", "START_TRANSACTION", f"tx-{number}"))
    path = tmp_path / "starts.xlsx"
    book.save(path)
    return path


def batches(path: Path) -> list[Batch]:
    with contextlib.closing(LogReader(path)) as reader:
        return sorted(reader.flows(Batch), key=lambda batch: batch.id)


def test_fifty_meters_three_failures_and_only_those_again(tmp_path: Path, run: Run) -> None:
    with fleet_of(tmp_path, BROKEN) as (fleet, path):
        file = table(tmp_path)
        dry = run("batch", file, "--workspace", path, "--dry-run", "--json")
        assert [record["line"]["faults"] for record in dry.records] == [[]] * METERS
        refused = run("batch", file, "--workspace", path, expect=2)
        assert "Start transaction on 50 devices. Confirm with --yes" in refused.err
        assert fleet.starts == {}
        report = tmp_path / "report.json"
        done = run("batch", file, "--workspace", path, "--yes", "--json", "--report", report, expect=1)
        first = done.records[-2]["batch"]
        assert (first["total"], first["successful"], first["failed"]) == (50, 47, 3)
        written = json.loads(report.read_text("utf-8"))
        assert (written["batch"]["total"], len(written["rows"])) == (50, 50)
        again = run("batch", "--retry", first["id"], "--workspace", path, "--yes", "--json")
        second = again.records[-1]["batch"]
        assert (second["total"], second["successful"], second["retry_of"]) == (3, 3, first["id"])
        assert {name for name, count in fleet.starts.items() if count != 1} == {f"tx-{n}" for n in BROKEN}
        assert all(fleet.starts[f"tx-{n}"] == 2 for n in BROKEN)  # the first was refused
        nothing = run("batch", "--retry", first["id"], "--workspace", path, "--yes", expect=1)
        assert f"lem-7: batch {second['id']} has tried it again." in nothing.err
    assert verify(path) == []


def test_killed_in_the_middle_it_goes_on_and_starts_nothing_twice(tmp_path: Path, run: Run) -> None:
    with fleet_of(tmp_path, delay="delay=0.3@POST/v1/legal") as (fleet, path):
        command = ["batch", str(table(tmp_path)), "--workspace", str(path), "--yes"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("METERWRIGHT")}
        words = [sys.executable, "-m", "ui", "--profile", str(tmp_path / "profile"), *command]
        with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as life:
            assert fleet.begun.wait(60), life.communicate(timeout=10)
            life.kill()
            life.communicate()
        (batch,) = batches(path)
        assert batch.completed_at is None
        done = run("batch", "--continue", batch.id, "--workspace", path, "--json", "--wait", 60, expect=None)
        (batch,) = batches(path)
        assert batch.completed_at is not None, done.err
        assert batch.processed == METERS
        assert max(fleet.starts.values()) == 1, f"started twice: {fleet.starts}"
        never = METERS - len(fleet.starts)  # cut off in the moment of leaving: read back, found not done, and so said
        assert batch.failed == never, (batch, done.out)
        if never:
            run("batch", "--retry", batch.id, "--workspace", path, "--yes")
        assert fleet.starts == Counter(f"tx-{n}" for n in range(METERS))  # each of them, and each once
    assert verify(path) == []


def test_a_flow_on_each_of_a_few_meters_with_a_report(tmp_path: Path, run: Run) -> None:
    flow = tmp_path / "look.toml"
    flow.write_text(
        'name = "look"\nversion = 1\ntitle = "Look at it"\nadapters = ["lem-dcbm"]\n'
        '[[inputs]]\nname = "firmware"\ntitle = "Firmware"\n'
        '[[steps]]\nname = "status"\ntitle = "Status"\ncommand = "READ_STATUS"\nevidence = ["result.meter_id"]\n'
        '[[steps]]\nname = "agreed"\ntitle = "Agreed"\nask = "Is it the right one?"\n',
        "utf-8",
    )
    with fleet_of(tmp_path) as (_fleet, path):
        file = tmp_path / "three.csv"
        file.write_text("device;Firmware\nlem-1;0.1\nCharger 2;0.2\n00000000003;\n", "utf-8")
        bad = run("batch", file, "--flow", flow, "--workspace", path, expect=2)
        assert "line 4, column Firmware: Firmware is missing." in bad.err
        report = tmp_path / "look.html"
        words = ("--flow", flow, "--answer", "agreed=yes", "--set", "firmware=0.3", "--report", report, "--json")
        done = run("batch", file, *words, "--workspace", path)
        made = done.records[-2]["batch"]
        assert (made["flow"], made["total"], made["successful"]) == ("look", 3, 3)
        assert "3 of 3 devices" in report.read_text("utf-8")


def test_a_file_with_faults_sends_nothing_and_says_where(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "one.mwk"
    writer = LogWriter(path)
    writer.put(Device(id="lem-1", name="Charger", adapter="lem-dcbm", settings={"host": "127.0.0.1", "port": 9}))
    writer.close()
    file = tmp_path / "list.csv"
    file.write_text("device,command\nlem-1,READ_STATUS\nlem-2,READ_STATUS\nlem-1,FLY\n", "utf-8")
    bad = run("batch", file, "--workspace", path, expect=2)
    assert "line 3, column device: 'lem-2' is no id, serial number or name of a device" in bad.err
    assert "line 4, column device: Charger stands in line 2 already" in bad.err
    assert "2 of 3 lines are wrong, so nothing was sent" in bad.err
    assert batches(path) == []
    stopped = run("batch", file, "--workspace", path, "--leave-out", "--wait", 0.5, expect=1)
    assert "1 waiting. It is stopped; go on with: meterwright batch --continue 1" in stopped.out


