"""One meter, two ways: the switch, what stands in its way, and events that are known after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from app.errors import ConfigError, WorkbenchError
from app.model.device import Route
from app.model.status import Status
from app.ports import Adapter, AdapterContext, Kept, Uplink
from tests.pipeline.harness import (
    BenchAdapter,
    BenchType,
    Field,
    MemoryStore,
    VirtualLoop,
    bench,
    bench_device,
    run_virtual,
)

WAYS = bench_device(1, route="directly", routes=(Route(name="round about", adapter="other"),))


def test_one_meter_by_two_ways() -> None:
    store, site = MemoryStore(), Field()
    kinds = (BenchType(site), BenchType(site, key="other"))

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, site, devices=[WAYS], bench_types=kinds) as workbench:
            first = await workbench.settled(workbench.submit("m1", "READ_DIRECT"))
            workbench.switch("m1", "round about")
            second = await workbench.settled(workbench.submit("m1", "READ_PULL"))
            assert (first.adapter, second.adapter) == ("bench", "other")
            assert (first.status, second.status) == (Status.SUCCESSFUL, Status.SUCCESSFUL)
            assert workbench.device("m1").ways == ("round about", "directly")
            with pytest.raises(ConfigError, match="one of its ways: round about, directly"):
                workbench.switch("m1", "by air")
        async with bench(loop, store, site, bench_types=kinds) as workbench:  # it is so after a restart
            assert workbench.device("m1").ways == ("round about", "directly")

    run_virtual(main)
    store.check()


def test_no_switch_while_an_answer_comes_the_old_way() -> None:
    store, site = MemoryStore(), Field()
    kinds = (BenchType(site), BenchType(site, key="other"))

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, site, devices=[WAYS], bench_types=kinds) as workbench:
            number = workbench.submit("m1", "READ_PULL")
            with pytest.raises(WorkbenchError, match="a command is not finished"):
                workbench.switch("m1", "round about")
            assert workbench.device("m1").adapter == "bench"
            await workbench.settled(number)
            workbench.switch("m1", "round about")

    run_virtual(main)


def test_wrong_ways_are_refused() -> None:
    store, site = MemoryStore(), Field()

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, site, devices=[bench_device(1)]) as workbench:
            for wrong in (
                replace(WAYS, route=""),
                replace(WAYS, routes=(Route(name="directly", adapter="bench"),)),
                replace(WAYS, routes=(Route(name="", adapter="bench"),)),
                replace(WAYS, routes=(Route(name="x", adapter="nope"),)),
                replace(WAYS, routes=(Route(name="x", adapter="bench", parent="nowhere"),)),
            ):
                with pytest.raises(ConfigError):
                    workbench.save_device(wrong)
            assert workbench.device("m1").ways == ()

    run_virtual(main)


class Hearing(BenchAdapter):
    answered: asyncio.Event

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """An event comes; what waits is answered once it is on disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        yield Kept(done, keys=("event-1",))
        await done
        self.answered.set()
        async for uplink in super().uplinks():
            yield uplink


@dataclass
class HearingType(BenchType):
    known: list[list[str]] = field(default_factory=list)  # what each adapter was told of earlier events
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def create(self, context: AdapterContext) -> Adapter:
        self.known.append(list(context.seen()))
        made = Hearing(context, self.field_, can_verify=True)
        made.answered = self.answered
        return made


def test_an_event_is_known_at_once_and_after_a_restart() -> None:
    store, kind = MemoryStore(), HearingType(Field())

    async def main(loop: VirtualLoop) -> None:
        for _life in range(2):
            kind.answered.clear()
            async with bench(loop, store, kind.field_, devices=[bench_device(1)], bench_type=kind):
                async with asyncio.timeout(60):
                    await kind.answered.wait()
        assert kind.known == [[], ["event-1"]]

    run_virtual(main)
