"""What live sides of adapters share: closing breaks commands off, and the end of a link is always told."""

from __future__ import annotations

import asyncio

import pytest

from app.adapters import _live
from app.adapters._live import Breakable, Uplinks, beside, closed_here
from app.errors import LinkError, LinkReason
from app.ports import Facts, Uplink
from tests.pipeline.harness import VirtualLoop, run_virtual


def test_closing_breaks_commands_off_and_lets_none_begin() -> None:
    async def main(_loop: VirtualLoop) -> tuple[LinkError, LinkError, bool]:
        commands, has_ended = Breakable(), False

        async def work() -> None:
            nonlocal has_ended
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)  # a last word to the device
                has_ended = True

        async def caught() -> LinkError:
            with pytest.raises(LinkError) as found:
                await commands.run(work())
            return found.value

        async with asyncio.TaskGroup() as group:
            under_way = group.create_task(caught())
            await asyncio.sleep(0)
            await commands.close(4.0)
            ended_in_time = has_ended
        return under_way.result(), await caught(), ended_in_time

    broken_off, not_begun, ended_in_time = run_virtual(main)
    assert ended_in_time
    assert broken_off.reason is not_begun.reason is LinkReason.CLOSED
    assert broken_off.may_have_arrived
    assert not not_begun.may_have_arrived


def test_closing_does_not_wait_for_ever() -> None:
    async def main(loop: VirtualLoop) -> float:
        commands = Breakable()

        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(100)

        async def run() -> None:
            with pytest.raises(LinkError):
                await commands.run(stubborn())

        async with asyncio.TaskGroup() as group:
            group.create_task(run())
            await asyncio.sleep(0)
            began = loop.time()
            await commands.close(4.0)
            return loop.time() - began

    assert run_virtual(main) == pytest.approx(4.0)


def test_a_command_that_is_done_is_not_broken_off() -> None:
    async def main(_loop: VirtualLoop) -> int:
        commands = Breakable()

        async def work() -> int:
            return 7

        found = await commands.run(work())
        await commands.close(4.0)
        return found

    assert run_virtual(main) == 7


def test_the_end_of_a_link_is_told_however_much_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_live, "MAX_UPLINKS", 2)

    async def main(_loop: VirtualLoop) -> tuple[list[Uplink], LinkError]:
        uplinks = Uplinks()
        for number in range(3):
            uplinks.tell(Facts(f"m-{number}", {}))
        uplinks.lose(closed_here())
        stream = uplinks.stream()
        heard = [await anext(stream) for _ in range(2)]
        with pytest.raises(LinkError) as lost:
            await anext(stream)
        return heard, lost.value

    heard, lost = run_virtual(main)
    assert heard == [Facts("m-0", {}), Facts("m-1", {})]
    assert "before the command was done" in str(lost)
    assert "Facts was dropped" in caplog.text


def test_a_failure_of_the_block_comes_out_as_it_is() -> None:
    async def main(_loop: VirtualLoop) -> bool:
        tasks = []

        async def block() -> None:
            async with beside() as group:
                tasks.append(group.create_task(asyncio.Event().wait()))
                try:
                    raise ValueError("the block's own")
                finally:
                    tasks[0].cancel()

        with pytest.raises(ValueError, match="the block's own"):
            await block()
        return tasks[0].cancelled()

    assert run_virtual(main)


def test_a_failure_beside_the_block_is_not_swallowed() -> None:
    async def fail() -> None:
        raise ValueError("beside it")

    async def block() -> None:
        async with beside() as group:
            group.create_task(fail())
            await asyncio.Event().wait()

    async def main(_loop: VirtualLoop) -> None:
        with pytest.raises(ExceptionGroup) as found:
            await block()
        assert found.group_contains(ValueError, match="beside it")

    run_virtual(main)
