"""What one device's answer teaches all devices of its adapter type, settings of devices that share a connection, and
a line that one at a time may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from app.errors import LinkError
from app.model.device import Device
from app.model.reading import LinkState
from app.model.status import Status
from app.ports import Accepted, Adapter, AdapterContext, Answer, Dispatch, LinkChange, Uplink
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


class Teacher(BenchAdapter):
    async def uplinks(self) -> AsyncIterator[Uplink]:
        for device in self._context.devices:
            yield LinkChange(device.id, LinkState.ONLINE)
        async for uplink in super().uplinks():
            yield uplink

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        own = self._context.settings_of(request.device.id)["note"]
        return Answer(result={"value": 1, "own": own, "known": dict(self._context.learnt())}, learnt={own: "9600 7E1"})


@dataclass
class OneLine(BenchType):
    contexts: list[AdapterContext] = field(default_factory=list)

    def create(self, context: AdapterContext) -> Adapter:
        self.contexts.append(context)
        return Teacher(context, self.field_, can_verify=True)

    def connection(self, device: Device) -> str:
        return "one line"


def test_answers_teach_every_device_of_the_type_also_after_a_restart() -> None:
    store, types = MemoryStore(), OneLine(Field())
    devices = [bench_device(number, settings={"note": f"model of m{number}"}) for number in (1, 2)]

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, types.field_, devices=devices, bench_type=types) as workbench:
            first = await workbench.settled(workbench.submit("m1", "READ_DIRECT"))
            second = await workbench.settled(workbench.submit("m2", "READ_DIRECT"))
        assert (first.status, second.status) == (Status.SUCCESSFUL, Status.SUCCESSFUL)
        assert first.result == {"value": 1, "own": "model of m1", "known": {}}
        assert second.result == {"value": 1, "own": "model of m2", "known": {"model of m1": "9600 7E1"}}
        assert len(types.contexts) == 1  # one adapter serves both, and nothing was reopened for it
        async with bench(loop, store, types.field_, devices=[], bench_type=types) as workbench:
            third = await workbench.settled(workbench.submit("m2", "READ_DIRECT"))
        assert third.result is not None
        assert third.result["known"] == {"model of m1": "9600 7E1", "model of m2": "9600 7E1"}

    run_virtual(main)
    store.check()


class Exclusive(OneLine):
    is_open = False

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        assert not self.is_open
        return [f"free, {context.settings['note']}"]

    def create(self, context: AdapterContext) -> Adapter:
        kind = self

        class Watched(Teacher):
            def open(self) -> AbstractAsyncContextManager[None]:
                return self._watched()

            @asynccontextmanager
            async def _watched(self) -> AsyncIterator[None]:
                async with super().open():
                    kind.is_open = True
                    try:
                        yield
                    finally:
                        kind.is_open = False

            async def submit(self, request: Dispatch) -> Accepted | Answer:
                await asyncio.sleep(2.0)
                return Answer(result={"value": 1})

        return Watched(context, self.field_, can_verify=True)


def test_a_test_of_the_connection_borrows_the_line() -> None:
    types = Exclusive(Field())
    types.base = replace(types.base, exclusive=True)
    store, devices = MemoryStore(), [bench_device(1)]

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, types.field_, devices=devices, bench_type=types) as workbench:
            await asyncio.sleep(1.0)
            assert types.is_open
            assert list(await workbench.probe("bench", {"note": "x"})) == ["free, x"]
            row = workbench.submit("m1", "READ_DIRECT")
            await asyncio.sleep(1.0)
            assert types.is_open  # it was opened again
            with pytest.raises(LinkError, match="Meter 1 is carrying out READ_DIRECT"):
                await workbench.probe("bench", {"note": "x"})
            assert (await workbench.settled(row)).status is Status.SUCCESSFUL

    run_virtual(main)
