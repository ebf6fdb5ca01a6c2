"""The player on virtual time: order, speed, pause, steps, seek and loop, and every end a command can have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import replaying
from app.adapters.registry import Registry
from app.adapters.replay import Part, Recorded
from app.interaction_log.reader import LogReader, Story
from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.interaction import Attempt, AttemptEnd, Direction, Failure, Frame, Interaction, Origin
from app.model.records import Change
from app.model.status import Event, Status
from app.ports import Answer, Snapshot
from app.replaying import Player, Unit, first_difference, recorded_outcome
from app.workbench import Workbench
from tests.integration.held import Held
from tests.pipeline.harness import MemoryStore, NoSecrets, VirtualLoop, run_virtual
from tests.unit.interaction_log import logs
from tests.unit.interaction_log.logs import START, line

DEVICE = "meter-1"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def frame(item: Interaction | None, seconds: float, direction: Direction, data: bytes) -> Frame:
    number = item.id if item is not None else None
    return Frame(at=at(seconds), device=DEVICE, link="line", direction=direction, data=data, interaction=number)


def why(code: str, seconds: float) -> Failure:
    return Failure(code=code, text=f"It is {code}.", at=at(seconds))


class Recording:
    """Interactions with their histories, as a pipeline would write them."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._count = 0

    def ask(self, seconds: float, **more: Any) -> Interaction:
        self._count += 1
        values: dict[str, Any] = {"device": DEVICE, "adapter": "foreign", "command": "READ"}
        return logs.fresh(self._count, created=at(seconds), updated=at(seconds), **values | more)

    def move(self, item: Interaction, event: Event, seconds: float, *more: Change, **changes: Any) -> Interaction:
        after = item.after(event, at(seconds), **changes)
        code = after.failure.code if after.failure is not None else ""
        self._writer.put(after, line(after, event, code=code), *more)
        return after

    def send(self, item: Interaction, seconds: float, data: bytes) -> Interaction:
        tried = Attempt(interaction=item.id, message=item.id, number=1, started=at(seconds), end=AttemptEnd.FAILED)
        return self.move(item, Event.SEND, seconds, tried, frame(item, seconds, Direction.OUT, data), attempts=1)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Ends of every kind; the comments name seconds after ``START``."""
    path = tmp_path / "kept.mwk"
    with LogWriter(path) as writer:
        tape = Recording(writer)
        first = tape.send(tape.move(tape.ask(0), Event.ADMIT, 0), 1, b"ask")
        writer.put(frame(first, 2, Direction.IN, b"told"))
        tape.move(first, Event.SUCCEED, 3, result={"value": "1.5", "rows": [{"a": 1}, None]})
        second = tape.send(tape.move(tape.ask(10), Event.ADMIT, 10), 11, b"again")
        tape.move(second, Event.FAIL, 14, failure=why("TIMEOUT", 14))
        report = tape.ask(20, origin=Origin.UNSOLICITED, command="REPORT", kind=CommandKind.UNSOLICITED)
        tape.move(report, Event.REPORT, 20, result={"door": True})
        tape.move(tape.ask(30), Event.SUSPEND, 30, failure=why("GRID_DOWN", 30))  # to the end
        tape.move(tape.ask(31), Event.ABORT, 31, failure=why("NOT_NOW", 31))
        waits = tape.move(tape.ask(32), Event.SUSPEND, 32, failure=why("LINK_DOWN", 32))
        waits = tape.move(waits, Event.ADMIT, 40, failure=None)
        tape.move(tape.send(waits, 41, b"late"), Event.SUCCEED, 42, result={})
        replaced = tape.move(tape.ask(50), Event.ADMIT, 50)
        tape.move(replaced, Event.SUPERSEDE, 55, failure=why("SUPERSEDED", 55))
        unseen = tape.move(tape.ask(60, kind=CommandKind.CONTROL, command="SWITCH"), Event.ADMIT, 60)
        unseen = tape.send(unseen, 61, b"x")
        tape.move(unseen, Event.LOSE_SIGHT, 63, failure=why("RESTART", 63))
        tape.send(tape.move(tape.ask(64), Event.ADMIT, 64), 65, b"for ever")  # under way to the end
        token = tape.move(tape.ask(66, kind=CommandKind.TOKEN, command="TOP_UP"), Event.ADMIT, 66)
        tape.move(token, Event.REFUSE_TOKEN, 67, failure=why("TOKEN_FAILED", 67))
        writer.put(frame(None, 70, Direction.IN, b"by itself"))
        removed = tape.send(tape.move(tape.ask(71), Event.ADMIT, 71), 72, b"gone")
        tape.move(removed, Event.UNINSTALL, 80, failure=why("REMOVED", 80))
    return path


class Show(Held):
    player: Player

    def frames(self) -> list[tuple[float, bytes]]:
        return [((one.at - START).total_seconds(), one.data) for one in self.of(Frame)]

    def ends(self) -> list[tuple[int | None, Status, str]]:
        rows = [one for one in self.of(Interaction) if one.is_settled]
        return [(row.replay_of, row.status, row.failure.code if row.failure else "") for row in rows]


@asynccontextmanager
async def showing(virtual: VirtualLoop, path: Path, **more: Any) -> AsyncIterator[Show]:
    with contextlib.closing(LogReader(path)) as reader:
        player = Player(reader, Registry(), monotonic=virtual.time, **more)
        workbench = Workbench(
            store=MemoryStore(), snapshot=Snapshot(), adapter_types=player.adapter_types(), clock=player.clock,
            secrets=NoSecrets(),
        )  # fmt: skip
        for device in player.devices():
            workbench.save_device(device)
        show = Show(workbench)
        show.player = player
        workbench.feed.subscribe(show.look)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(workbench.run())
            try:
                yield show
            finally:
                workbench.stop()
                await task


def virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    run_virtual(main)


ENDS = {
    (1, Status.SUCCESSFUL, ""),
    (2, Status.FAILED, "TIMEOUT"),
    (None, Status.SUCCESSFUL, ""),
    (5, Status.ABORTED, "NOT_NOW"),
    (6, Status.SUCCESSFUL, ""),
    (7, Status.SUPERSEDED, "SUPERSEDED"),
    (8, Status.OUTCOME_UNKNOWN, "RESTART"),
    (10, Status.FAILED, "TOKEN_FAILED"),
    (11, Status.ABORTED, "REMOVED"),
}


BYTES = {1: b"ask", 2: b"told", 11: b"again", 41: b"late", 61: b"x", 65: b"for ever", 70: b"by itself", 72: b"gone"}


@pytest.mark.parametrize("speed", [0.0, 0.1, 1.0, 7.0, 1000.0])
def test_every_end_and_every_byte_at_every_speed(kept: Path, speed: float) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with showing(loop, kept, speed=speed) as show:
            began = loop.time()
            await show.player.play_to_end(show.workbench)
            took = loop.time() - began
            assert list(show.player.differences()) == []
            assert set(show.ends()) == ENDS
            shown = [data for _at, data in show.frames()]
            assert sorted(shown) == sorted(BYTES.values())
            assert shown.index(b"ask") < shown.index(b"told")
            if 0 < speed < 100:  # slow against a tick: also the order and the times between commands
                assert shown == list(BYTES.values())
                assert [seconds for seconds, _data in show.frames()] == pytest.approx(list(BYTES), abs=0.06 * speed)
            if speed:
                assert took == pytest.approx(80 / speed, abs=0.2)

    virtually(main)


def test_steps_by_frame_and_by_interaction_and_a_pause_in_between(kept: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with showing(loop, kept, speed=1.0) as show, asyncio.TaskGroup() as group:
            player = show.player
            player.pause()
            task = group.create_task(player.play(show.workbench))

            async def stepped(unit: Unit) -> float:
                player.step(unit)
                await asyncio.sleep(1)
                assert player.paused
                return (player.position - START).total_seconds()

            await asyncio.sleep(100)
            assert (player.played, player.position) == (0, player.start)
            assert [await stepped(Unit.FRAME) for _ in range(2)] == [1, 2]
            assert show.frames() == [(1, b"ask"), (2, b"told")]
            assert show.ends() == []
            assert [await stepped(Unit.INTERACTION) for _ in range(3)] == [3, 14, 20]  # a report is one as well
            assert len(show.ends()) == 3
            player.resume()
            await asyncio.sleep(11.5)
            player.pause()
            assert player.position == pytest.approx(at(31.5), abs=timedelta(seconds=0.1))
            played = player.played
            await asyncio.sleep(100)
            assert player.played == played
            task.cancel()

    virtually(main)


def test_seek_gives_up_what_is_under_way_and_plays_from_there(kept: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with showing(loop, kept, speed=1.0) as show, asyncio.TaskGroup() as group:
            player = show.player
            sought: list[datetime] = []
            player.on_seek = lambda: sought.append(player.position)
            task = group.create_task(player.play(show.workbench))
            await asyncio.sleep(2.5)
            player.seek(at(65.5))
            assert sought == [at(65.5)]
            await asyncio.sleep(2)
            assert show.ends() == [(1, Status.ABORTED, "REPLAY_MOVED"), (10, Status.FAILED, "TOKEN_FAILED")]
            player.seek(at(-100))
            assert player.position == player.start
            await asyncio.sleep(4)
            assert show.ends()[-1] == (1, Status.SUCCESSFUL, "")
            assert list(player.differences()) == []
            player.seek(at(1000))
            await asyncio.sleep(1)
            assert (player.finished, player.position) == (True, player.end)
            task.cancel()

    virtually(main)


def test_a_loop_begins_again_and_the_speed_may_change_meanwhile(kept: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with showing(loop, kept, speed=10.0, loop=True) as show, asyncio.TaskGroup() as group:
            player = show.player
            task = group.create_task(player.play(show.workbench))
            await asyncio.sleep(20)  # of 8 s each
            assert [row[0] for row in show.ends()].count(1) == 3
            assert [row[0] for row in show.ends()].count(11) == 2
            assert list(player.differences()) == []
            for asked, got in ((5000, 1000.0), (0.01, 0.1), (0, 0.0), (2.5, 2.5)):
                player.set_speed(asked)
                assert player.speed == got
                player.pause()
            task.cancel()

    virtually(main)


def test_what_ends_otherwise_is_told(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def otherwise(story: Story) -> Recorded:
        match story.interaction.id:
            case 1:
                return Recorded(Answer(result={"value": "1.5", "rows": [{"a": 2}, None]}))
            case 2:
                return Recorded(None, ("LATE", "Too late."))
            case 6:
                return Recorded(None, ("TIMEOUT", "Nothing came."))
            case _:
                return recorded_outcome(story)

    monkeypatch.setattr(replaying, "recorded_outcome", otherwise)

    async def main(loop: VirtualLoop) -> None:
        async with showing(loop, kept, speed=0) as show:
            await show.player.play_to_end(show.workbench)
            found = {difference.interaction: difference for difference in show.player.differences()}
        assert {number: one.what for number, one in found.items()} == {1: "result", 2: "code", 6: "status"}
        assert (found[1].where, found[1].recorded, found[1].now) == ("rows[0].a", 1, 2)
        assert (found[2].recorded, found[2].now) == ("TIMEOUT", "LATE")
        assert str(found[6]) == "#6 READ on meter-1: it was SUCCESSFUL and is FAILED (TIMEOUT)."
        assert found[6].to_json()["interaction"] == 6

    virtually(main)


def test_what_does_not_end_is_told_and_not_waited_for_for_ever(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Part, "end", lambda _part: None)

    async def main(loop: VirtualLoop) -> None:
        async with showing(loop, kept, speed=0) as show:
            await show.player.play_to_end(show.workbench)
            told = {difference.interaction for difference in show.player.differences() if difference.what == "end"}
        assert told == {1, 2, 6, 8, 10}

    virtually(main)


def test_first_difference() -> None:
    assert first_difference({"a": [1, {"b": None}]}, {"a": [1, {}]}) is None
    assert first_difference({"a": [1]}, {"a": [1, 2]}) == ("a[1]", None, 2)
    assert first_difference({"a": True}, {"a": 1}) == ("a", True, 1)
    assert first_difference("x", "y") == ("the result", "x", "y")
