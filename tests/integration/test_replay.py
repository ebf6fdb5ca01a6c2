"""Replay of a kept log: same pipeline, recorded answers, recorded time; pause, step, seek and speed."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from app.adapters.registry import Registry
from app.composition import open_session, running
from app.errors import StoreError
from app.interaction_log.reader import LogReader
from app.model.device import Device
from app.model.interaction import Frame, Interaction
from app.model.reading import LinkState, SampleSet
from app.model.status import Status
from app.replaying import Player, Unit, scratch_path
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from tests.integration.held import Held

COMMANDS = ("READ_STATUS", "START_TRANSACTION", "READ_LIVE", "STOP_TRANSACTION")


@pytest.fixture
async def kept(tmp_path: Path) -> Path:
    """A real session against a simulated meter, with one command that failed."""
    path = tmp_path / "kept.mwk"
    async with LemDcbmSimulator(LemDcbmConfig(uptime_s=3600, load="always")) as meter:
        with open_session(path) as session:
            workbench = session.workbench
            settings = {"host": meter.host, "port": meter.port, "poll_interval_ms": 200}
            workbench.save_device(Device(id="lem", name="LEM", adapter="lem-dcbm", settings=settings))
            async with running(workbench), asyncio.timeout(30):
                for command in COMMANDS:
                    params = {"transaction_id": "tx-1"} if command == "START_TRANSACTION" else {}
                    await workbench.settled(workbench.submit("lem", command, params))
                meter.faults.set("http-error=500@GET/v1/settings")
                await workbench.settled(workbench.submit("lem", "READ_SETTINGS"))
                await meter.wait_for_requests(meter.request_count + 5)
    return path


@dataclass
class Show(Held):
    """A replay under way."""

    player: Player

    def ended(self) -> list[Interaction]:
        return [c for c in self.changes if isinstance(c, Interaction) and c.is_settled]


@asynccontextmanager
async def replay(path: Path, folder: Path, speed: float) -> AsyncIterator[Show]:
    with contextlib.closing(LogReader(path)) as reader:
        player = Player(reader, Registry(), speed=speed)
        scratch = scratch_path(folder, path)
        with open_session(scratch, adapter_types=player.adapter_types(), clock=player.clock) as session:
            for device in player.devices():
                session.workbench.save_device(device)
            show = Show(session.workbench, player)
            session.workbench.feed.subscribe(show.look)
            async with running(session.workbench):
                yield show


async def test_as_fast_as_possible_ends_like_the_recording(kept: Path, tmp_path: Path) -> None:
    before = kept.read_bytes()
    async with replay(kept, tmp_path / "s", math.inf) as show:
        await show.player.play_to_end(show.workbench)
        assert list(show.player.differences()) == []
        by_command = {i.command: i for i in show.ended()}
        assert set(by_command) == {*COMMANDS, "READ_SETTINGS"}
        assert by_command["READ_SETTINGS"].status is Status.FAILED
        start = by_command["START_TRANSACTION"]
        assert (start.status, start.params["transaction_id"]) == (Status.SUCCESSFUL, "tx-1")
        frames = [c for c in show.changes if isinstance(c, Frame) and c.interaction == start.id]
        assert any(b"POST /v1/legal" in frame.data for frame in frames)
        assert show.workbench.state("lem").link is LinkState.REPLAY
        assert sum(isinstance(c, SampleSet) for c in show.changes) > 5
    assert kept.read_bytes() == before


async def test_time_is_the_recordings(kept: Path, tmp_path: Path) -> None:
    async with replay(kept, tmp_path / "s", math.inf) as show:
        await show.player.play_to_end(show.workbench)
        span = show.player.start - timedelta(seconds=1), show.player.end + timedelta(seconds=1)
        assert all(span[0] <= i.created <= span[1] for i in show.ended())
        assert show.player.position == show.player.end


async def test_pause_step_seek_and_speed(kept: Path, tmp_path: Path) -> None:
    async with replay(kept, tmp_path / "s", 1.0) as show, asyncio.TaskGroup() as group:
        player = show.player
        player.pause()
        task = group.create_task(player.play(show.workbench))
        at = player.position
        player.step(Unit.FRAME)
        await show.until(lambda: len(show.of(Frame)) == 1)
        assert player.paused
        assert at <= player.position <= player.end
        player.step()
        await show.until(lambda: len(show.ended()) == 1)
        sought: list[bool] = []
        player.on_seek = lambda: sought.append(True)
        player.seek(player.start)
        assert (player.position, sought) == (player.start, [True])
        player.seek(player.end + timedelta(days=1))
        assert player.position == player.end
        player.seek(player.start)
        player.set_speed(0)
        assert player.speed == 0.0
        player.resume()
        await show.until(lambda: player.finished and len({i.command for i in show.ended()}) == 5)
        player.set_speed(5000)
        assert player.speed == 1000.0
        task.cancel()


async def test_a_command_of_ones_own_reaches_nothing(kept: Path, tmp_path: Path) -> None:
    async with replay(kept, tmp_path / "s", math.inf) as show:
        await show.until(lambda: show.workbench.state("lem").link is LinkState.REPLAY)
        number = show.workbench.submit("lem", "READ_STATUS")
        done = await show.workbench.settled(number)
        assert done.status is Status.FAILED
        assert done.failure is not None
        assert "reaches no meter" in done.failure.text


async def test_from_and_to(kept: Path, tmp_path: Path) -> None:
    with contextlib.closing(LogReader(kept)) as reader:
        second = reader.interaction(2)
        assert second is not None
        player = Player(reader, Registry(), since=second.created, until=second.created, speed=math.inf)
        with open_session(tmp_path / "s.mwk", adapter_types=player.adapter_types(), clock=player.clock) as session:
            for device in player.devices():
                session.workbench.save_device(device)
            async with running(session.workbench):
                await player.play_to_end(session.workbench)
                done = session.workbench.interaction(1)
                assert done is not None
                assert (done.command, done.replay_of) == ("START_TRANSACTION", 2)
                assert session.workbench.interaction(2) is None


def test_an_empty_log_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.mwk"
    with open_session(path):
        pass
    with contextlib.closing(LogReader(path)) as reader, pytest.raises(StoreError, match="nothing to replay"):
        Player(reader, Registry())
