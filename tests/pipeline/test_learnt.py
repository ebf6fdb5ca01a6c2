"""What one device's answer teaches all devices of its adapter type, and settings of devices that share a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

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
