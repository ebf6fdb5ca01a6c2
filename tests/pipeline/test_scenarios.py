"""Scenarios of specs/command-flow.md section 9 that need no vendor: field, queue, retries and polling, on virtual time.

The adapters here are the bench's, with the limits of the CALIN ones: ``radio`` stands for CALIN_LORAWAN (push),
``vendor`` for CALIN_V1 (pull).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from app.model.command import CommandKind, CommandSpec, ReplyPattern
from app.model.device import Device, NodeKind
from app.model.interaction import Attempt, Interaction, Message, Origin
from app.model.reading import DeviceState, LinkState
from app.model.status import Status
from app.ports import Limits, LinkChange, Reach, RetryPolicy
from app.workbench import Workbench
from tests.pipeline.harness import EPOCH, BenchType, Field, MemoryStore, VirtualLoop, bench, run_virtual

RADIO = Limits(
    reach=Reach.GRID,
    unreachable_after_s=24 * 3600.0,
    fresh_s=59 * 60.0,
    max_in_flight=1000,
    spacing_s=2.0,
    accept_timeout_s=10.0,
    stage_timeout_s=900.0,
    device_timeout_s=12.0,
    retry=RetryPolicy(retries=11, backoff_s=2.0, jitter=0.0),
)
VENDOR = Limits(
    reach=Reach.GATEWAY,
    max_in_flight=5,
    accept_timeout_s=30.0,
    stage_timeout_s=48 * 3600.0,
    stage_code="PULL_MAX_AGE",
    stage_is_final=True,
    poll_grid_s=5.0,
    retry=RetryPolicy(retries=11, backoff_s=2.0, jitter=0.0),
)
COMMANDS: dict[str, dict[str, Any]] = {
    "READ_CREDIT": {"kind": CommandKind.READ},
    "READ_POWER": {"kind": CommandKind.READ},
    "READ_POWER_LIMIT": {"kind": CommandKind.READ},
    "READ_VOLTAGE": {"kind": CommandKind.READ},
    "TURN_ON": {"kind": CommandKind.CONTROL, "field_group": "relay"},
    "TURN_OFF": {"kind": CommandKind.CONTROL, "field_group": "relay"},
    "TOP_UP": {"kind": CommandKind.TOKEN, "field_group": "credit", "group_rank": 1, "priority": 50},
    "CLEAR_CREDIT": {"kind": CommandKind.TOKEN, "field_group": "credit", "priority": 60},
    "SET_POWER_LIMIT": {"kind": CommandKind.TOKEN, "field_group": "limit"},
}


def calin(field_: Field, key: str, limits: Limits, pattern: ReplyPattern, missing: dict[str, str]) -> BenchType:
    specs = tuple(
        CommandSpec(name=name, title=name, pattern=pattern, **more)
        for name, more in COMMANDS.items()
        if name not in missing
    )
    return BenchType(field_, key=key, base=limits, specs=specs, missing=missing)


@dataclass
class Scene:
    workbench: Workbench
    store: MemoryStore
    field: Field

    def send(self, device: str, command: str, origin: Origin = Origin.USER) -> int:
        return self.workbench.submit(device, command, origin=origin)

    def now(self, number: int) -> Interaction:
        found = self.workbench.interaction(number)
        assert found is not None
        return found

    def code(self, number: int) -> str:
        failure = self.now(number).failure
        return failure.code if failure is not None else ""

    def messages(self) -> list[Message]:
        return self.store.of(Message)


Play = Callable[[Scene, VirtualLoop], Awaitable[None]]


def meter(name: str, adapter: str = "radio", gateway: str = "g1", **attributes: Any) -> Device:
    lane = gateway if adapter == "vendor" else "grid"
    return Device(
        id=name, name=name, adapter=adapter, parent="grid", attributes={"gateway": gateway, "lane": lane, **attributes}
    )


def gateway(name: str, adapter: str = "radio") -> Device:
    return Device(id=name, name=name, adapter=adapter, kind=NodeKind.GATEWAY, parent="grid", enabled=False)


def play(
    scene: Play,
    devices: list[Device],
    *,
    facts: dict[str, dict[str, Any]] | None = None,
    seen: dict[str, timedelta | None] | None = None,
    managed: bool = True,
    field_: Field | None = None,
) -> MemoryStore:
    """Set the stage: a managed, energised grid; gateways online; meters seen ten minutes ago unless said otherwise."""
    field_ = field_ or Field()
    store = MemoryStore()
    grid = Device(
        id="grid", name="North", kind=NodeKind.GRID, attributes={"is_generation_managed": managed, "is_hps_on": True}
    )
    store.durable += [grid, *devices]
    known = {"grid": {"is_hps_on": True}} | {
        d.id: {"is_online": True} for d in devices if d.kind is NodeKind.GATEWAY
    } | (facts or {})  # fmt: skip
    for name, values in known.items():
        store.durable.append(DeviceState(device=name, facts=values, facts_at=dict.fromkeys(values, EPOCH)))
    for device in devices:
        if device.kind is NodeKind.METER:
            ago = (seen or {}).get(device.id, timedelta(minutes=10))
            contact = EPOCH - ago if ago is not None else None
            store.durable.append(DeviceState(device=device.id, last_contact=contact))

    async def main(loop: VirtualLoop) -> None:
        kinds = [
            calin(field_, "radio", RADIO, ReplyPattern.PUSH, {"READ_VERSION": "the radio has no such request"}),
            calin(field_, "vendor", VENDOR, ReplyPattern.PULL, {"SET_TIME": "the vendor's API has no such call"}),
        ]
        async with bench(loop, store, field_, bench_types=kinds) as workbench:
            await asyncio.sleep(0)
            await scene(Scene(workbench, store, field_), loop)

    run_virtual(main)
    store.check()
    return store


def test_S01_any_gateway_of_the_grid_will_do() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        number = s.send("m1", "READ_CREDIT")
        assert (s.now(number).status, s.now(number).priority) == (Status.PROCESSING, 30)
        assert len({m.id for m in s.messages()}) == 1

    play(scene, [gateway("g1"), gateway("g2"), meter("m1", gateway="g2")], facts={"g2": {"is_online": False}})


@pytest.mark.parametrize(("managed", "status", "code"), [(True, Status.SUSPENDED, "GRID_DOWN"), (False, None, "")])
def test_S02_dark_grid(managed: bool, status: Status | None, code: str) -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        number = s.send("m1", "TURN_OFF")
        if status is None:
            assert s.now(number).status is Status.PROCESSING
        else:
            assert (s.now(number).status, s.code(number)) == (status, code)
            assert s.messages() == []
            assert sum(line.status is Status.SUSPENDED for line in s.store.history(number)) == 1

    play(scene, [gateway("g1"), meter("m1")], facts={"grid": {"is_hps_on": False}}, managed=managed)


def test_S03_all_radio_gateways_down_and_a_vendor_meter_beside() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        radio, vendor = s.send("m1", "READ_CREDIT"), s.send("v1", "READ_CREDIT")
        assert (s.now(radio).status, s.code(radio)) == (Status.SUSPENDED, "ALL_GATEWAYS_DOWN")
        assert s.now(vendor).status is Status.PROCESSING

    devices = [gateway("g1"), gateway("d1", "vendor"), meter("m1"), meter("v1", "vendor", "d1")]
    play(scene, devices, facts={"g1": {"is_online": False}})


def test_S04_own_gateway_down() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        number = s.send("v1", "TURN_ON")
        assert (s.now(number).status, s.code(number)) == (Status.SUSPENDED, "GATEWAY_DOWN")

    devices = [gateway("d1", "vendor"), gateway("d2", "vendor"), meter("v1", "vendor", "d1")]
    play(scene, devices, facts={"d1": {"is_online": False}})


def test_S05_exactly_a_day_passes_and_a_second_more_does_not() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        on_time, late = s.send("m1", "READ_CREDIT"), s.send("m2", "READ_CREDIT")
        assert s.now(on_time).status in (Status.QUEUED, Status.PROCESSING)
        assert (s.now(late).status, s.code(late)) == (Status.ABORTED, "UNREACHABLE")
        failure = s.now(late).failure
        assert failure is not None
        assert failure.is_final

    ages: dict[str, timedelta | None] = {"m1": timedelta(hours=24), "m2": timedelta(hours=24, seconds=1)}
    play(scene, [gateway("g1"), meter("m1"), meter("m2")], seen=ages)


def test_S06_never_seen() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        radio, vendor = s.send("m1", "READ_VOLTAGE"), s.send("v1", "READ_VOLTAGE")
        assert (s.now(radio).status, s.code(radio)) == (Status.ABORTED, "NEVER_SEEN")
        assert s.now(vendor).status is Status.PROCESSING

    devices = [gateway("g1"), gateway("d1", "vendor"), meter("m1"), meter("v1", "vendor", "d1")]
    play(scene, devices, seen={"m1": None, "v1": None})


def test_S07_long_silent_on_a_dark_grid_is_suspended() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        number = s.send("m1", "SET_POWER_LIMIT")
        assert (s.now(number).status, s.code(number)) == (Status.SUSPENDED, "GRID_DOWN")

    play(
        scene, [gateway("g1"), meter("m1")], facts={"grid": {"is_hps_on": False}}, seen={"m1": timedelta(hours=30)}
    )


def test_S08_unsupported_never_hides_behind_an_outage() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        vendor, power, radio = s.send("v1", "SET_TIME"), s.send("v1", "READ_POWER"), s.send("m1", "READ_VERSION")
        assert (s.now(vendor).status, s.code(vendor)) == (Status.ABORTED, "UNSUPPORTED")
        assert (s.now(power).status, s.code(power)) == (Status.SUSPENDED, "GATEWAY_DOWN")
        assert (s.now(radio).status, s.code(radio)) == (Status.ABORTED, "UNSUPPORTED")
        assert s.messages() == []

    devices = [gateway("g1"), gateway("d1", "vendor"), meter("m1"), meter("v1", "vendor", "d1")]
    play(scene, devices, facts={"d1": {"is_online": False}})


def test_S09_suspended_rows_go_on_after_five_stable_minutes_in_order() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        first, second = s.send("v1", "READ_CREDIT"), s.send("v2", "READ_CREDIT")
        assert {s.now(first).status, s.now(second).status} == {Status.SUSPENDED}
        await asyncio.sleep(30)
        s.workbench.set_field_state("d1", is_up=True)  # first seen up by the refresh at 60 s
        start = 60.0
        while loop.time() < start + 240 + 1:
            await asyncio.sleep(20)
            s.workbench.set_field_state("d1", is_up=True)  # the state stays fresh
        assert {s.now(first).status, s.now(second).status} == {Status.SUSPENDED}
        await asyncio.sleep(start + 300 + 1 - loop.time())
        lines = [line for line in s.store.everything() if getattr(line, "event", "") == "ADMIT"]
        assert [line.interaction for line in lines] == [first, second]  # type: ignore[union-attr]

    devices = [gateway("d1", "vendor"), meter("v1", "vendor", "d1"), meter("v2", "vendor", "d1")]
    play(scene, devices, facts={"d1": {"is_online": False}})


def test_S09_a_link_that_comes_back_does_not_cut_the_five_minutes_short() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        number = s.send("v1", "READ_CREDIT")
        await asyncio.sleep(30)
        s.workbench.set_field_state("d1", is_up=True)
        await asyncio.sleep(10)
        s.workbench._uplink("vendor", LinkChange("v1", LinkState.FAULT, "The vendor's service does not answer."))
        s.workbench._uplink("vendor", LinkChange("v1", LinkState.ONLINE))
        await asyncio.sleep(10)
        assert (s.now(number).status, s.code(number)) == (Status.SUSPENDED, "GATEWAY_DOWN")

    play(scene, [gateway("d1", "vendor"), meter("v1", "vendor", "d1")], facts={"d1": {"is_online": False}})


def test_S09_a_flapping_gateway_is_not_confirmed() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        number = s.send("v1", "READ_CREDIT")
        for second in range(0, 840, 30):
            s.workbench.set_field_state("d1", is_up=second % 240 < 180)
            await asyncio.sleep(30)
        assert s.now(number).status is Status.SUSPENDED

    play(scene, [gateway("d1", "vendor"), meter("v1", "vendor", "d1")], facts={"d1": {"is_online": False}})


def test_S10_picks_by_priority_two_seconds_apart() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        s.send("m0", "READ_CREDIT")  # starts the spacing
        numbers = [
            s.send("m1", "READ_POWER", Origin.BATCH),
            s.send("m2", "READ_CREDIT"),
            s.send("m3", "TURN_ON"),
            s.send("m4", "TOP_UP", Origin.ORDER),
            s.send("m5", "CLEAR_CREDIT", Origin.ORDER),
        ]
        await asyncio.sleep(30)
        starts = sorted((a.started, a.interaction) for a in s.store.of(Attempt) if a.number == 1 and a.ended is None)
        picked = {number: moment for moment, number in starts}
        order = sorted(numbers, key=lambda number: picked[number])
        assert order == list(reversed(numbers))
        moments = sorted(picked.values())
        gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(moments)]
        assert min(gaps) >= 2.0

    play(scene, [gateway("g1"), *(meter(f"m{n}") for n in range(6))])


def test_S11_a_silent_meter_is_tried_twelve_times() -> None:
    field_ = Field()

    async def scene(s: Scene, loop: VirtualLoop) -> None:
        bench_meter = field_.meter("m1")

        async def transmitted_only(task: str, end: Any = None) -> None:
            link = end or bench_meter.link
            assert link is not None
            await link.send(json.dumps({"event": "transmitted", "task": task}).encode() + b"\n")

        bench_meter.push = transmitted_only  # type: ignore[method-assign]
        number = s.send("m1", "READ_CREDIT")
        await asyncio.sleep(2 * 3600)
        done = s.now(number)
        assert (done.status, done.attempts, s.code(number)) == (Status.FAILED, 12, "DEVICE_TIMEOUT")
        starts = [a.started for a in s.store.of(Attempt) if a.ended is None]
        gaps = [round((b - a).total_seconds()) for a, b in itertools.pairwise(starts)]
        assert gaps == [12 + 2 * 2**n for n in range(11)]
        sends = [line for line in s.store.history(number) if line.status is Status.PROCESSING]
        assert len(sends) == 1

    play(scene, [gateway("g1"), meter("m1")], field_=field_)


def test_S15_polls_on_the_grid() -> None:
    field_ = Field()
    field_.meter("v1").polls_pending = 4
    field_.meter("v1").answer_delay_s = 0.0

    async def scene(s: Scene, loop: VirtualLoop) -> None:
        number = s.send("v1", "READ_CREDIT")
        done = await s.workbench.settled(number)
        assert done.status is Status.SUCCESSFUL
        polls = [r for r in field_.meter("v1").received if r["do"] == "poll"]
        assert len(polls) == 5
        assert loop.time() == pytest.approx(70, abs=1)  # 10, 20, 35, 50, 70: accepted at 0, on the 5 s grid

    play(scene, [gateway("d1", "vendor"), meter("v1", "vendor", "d1")], field_=field_)


def test_S17_five_in_flight_and_the_sixth_when_a_slot_is_free() -> None:
    field_ = Field()
    for n in range(7):
        field_.meter(f"v{n}").polls_pending = 10_000

    async def scene(s: Scene, loop: VirtualLoop) -> None:
        numbers = [s.send(f"v{n}", "READ_CREDIT") for n in range(7)]
        await asyncio.sleep(60)
        statuses = [s.now(number).status for number in numbers]
        assert statuses.count(Status.PROCESSING) == 5
        assert statuses.count(Status.QUEUED) == 2
        field_.meter("v0").polls_pending = 0
        await s.workbench.settled(numbers[0])
        await asyncio.sleep(1)
        assert [s.now(number).status for number in numbers].count(Status.QUEUED) == 1

    devices = [gateway("d1", "vendor"), *(meter(f"v{n}", "vendor", "d1") for n in range(7))]
    play(scene, [replace(d) for d in devices], field_=field_)


def test_D26_an_outage_after_queueing_costs_no_attempt() -> None:
    field_ = Field()

    async def scene(s: Scene, loop: VirtualLoop) -> None:
        first, second = s.send("m1", "READ_CREDIT"), s.send("m2", "READ_CREDIT")  # the second waits for the spacing
        assert s.now(second).status is Status.QUEUED
        s.workbench.set_field_state("grid", is_up=False)
        await asyncio.sleep(3600)
        assert (s.now(second).status, s.now(second).attempts) == (Status.QUEUED, 0)
        held = [m.hold_reason for m in s.messages() if m.interaction == second]
        assert held[-1] == "North is dark."
        s.workbench.set_field_state("grid", is_up=True)
        done = await s.workbench.settled(second)
        assert (done.status, done.attempts) == (Status.SUCCESSFUL, 1)
        assert s.now(first).status is Status.SUCCESSFUL

    play(scene, [gateway("g1"), meter("m1"), meter("m2")], field_=field_)


def test_D22_a_new_write_does_not_overtake_suspended_ones() -> None:
    async def scene(s: Scene, loop: VirtualLoop) -> None:
        old = s.send("m1", "TURN_OFF")
        assert s.code(old) == "GRID_DOWN"
        s.workbench.set_field_state("grid", is_up=True)
        new = s.send("m1", "TURN_ON")
        assert s.code(new) == "BEHIND_SUSPENDED"
        await asyncio.sleep(420)
        order = sorted((a.started, a.interaction) for a in s.store.of(Attempt) if a.ended is None)
        assert [number for _moment, number in order] == [old, new]

    play(scene, [gateway("g1"), meter("m1")], facts={"grid": {"is_hps_on": False}})
