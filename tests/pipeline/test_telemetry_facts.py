"""Facts that come with telemetry were learnt when its packet was received, not when the pipeline came to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from app.model.reading import LinkState, Quantity, SampleSet
from app.ports import Adapter, AdapterContext, LinkChange, Telemetry, Uplink
from app.workbench import Workbench
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

LATE = timedelta(seconds=2)


class Late(BenchAdapter):
    async def uplinks(self) -> AsyncIterator[Uplink]:
        yield LinkChange("m1", LinkState.ONLINE)
        values = ((Quantity("value", "W", "Value"), Decimal(1)),)
        for state, ago in (("IDLE", LATE), ("CHARGING", 2 * LATE)):
            received = self._context.clock.now() - ago
            yield Telemetry(SampleSet(device="m1", received=received, values=values), {"state": state})
        async for uplink in super().uplinks():
            yield uplink


@dataclass
class LateType(BenchType):
    def create(self, context: AdapterContext) -> Adapter:
        return Late(context, self.field_, can_verify=True)


def test_facts_are_as_old_as_their_packet_and_an_older_packet_changes_nothing() -> None:
    store, types = MemoryStore(), LateType(Field())

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, types.field_, devices=[bench_device(1)], bench_type=types) as workbench:
            opened: Workbench = workbench
            start = opened.clock.now()
            await opened.settled(opened.submit("m1", "READ_DIRECT"))
            state = opened.state("m1")
        assert state.facts["state"] == "IDLE"
        assert start - LATE <= state.facts_at["state"] < start

    run_virtual(main)
    store.check()
