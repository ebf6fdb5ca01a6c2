"""Findings that somebody other than an adapter tells."""

from __future__ import annotations

import pytest

from app.errors import WorkbenchError
from app.model.reading import Finding, Severity
from tests.pipeline.harness import EPOCH, Field, MemoryStore, VirtualLoop, bench, bench_device, run_virtual


def test_what_a_person_or_a_chart_tells_is_kept_and_seen() -> None:
    store = MemoryStore()
    finding = Finding(at=EPOCH, device="m1", severity=Severity.WARNING, code="THRESHOLD", text="Voltage above 250 V.")

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, Field(), devices=[bench_device(1)]) as workbench:
            seen: list[object] = []
            workbench.feed.subscribe(seen.append)
            workbench.tell(finding)
            assert finding in seen
            with pytest.raises(WorkbenchError, match="no device 'm9'"):
                workbench.tell(Finding(at=EPOCH, device="m9", severity=Severity.INFO, code="X", text="x"))

    run_virtual(main)
    assert finding in store.of(Finding)
