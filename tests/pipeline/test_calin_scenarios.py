"""Scenarios of specs/command-flow.md section 9 with CALIN meters, and more of the same kind, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.errors import LocalProtocolError
from app.model.flow import (
    Batch,
    BatchRule,
    DeliveryStatus,
    FlowStatus,
    FsCommand,
    Issue,
    IssueKind,
    IssueStatus,
    NewOrder,
    Order,
)
from app.model.interaction import Interaction, Origin
from app.model.status import Delivery, Status
from app.ports import Answer, Disposition, Execution, LateOrPushed
from app.protocols import calin_lorawan as lora
from app.protocols.calin_lorawan import Credit, MeterStatus
from app.workbench import CancelResult
from tests.pipeline.harness import EPOCH
from tests.pipeline.scripted import (
    NO,
    RADIO,
    REFUSED,
    SILENT,
    V1,
    V2,
    FarSide,
    QuietLorawan,
    QuietRadio,
    QuietV2,
    Reply,
    Stage,
    commissioned,
    gateway,
    meter,
    play,
    refusing,
    says,
)

S = Status
HOUR = 3600.0
FIVE_STEPS = ["CLEAR_TAMPER", "CLEAR_CREDIT", "SET_POWER_LIMIT", "READ_VOLTAGE", "READ_POWER"]
ACTIVE = {S.QUEUED, S.SUSPENDED, S.PROCESSING}
CREDITED = {"initial_credit_kwh": "1.5"}  # of the grid: six steps


def quiet(s: Stage, device: str = "m1") -> QuietLorawan:
    adapter = s.far.adapters[device]
    assert isinstance(adapter, QuietLorawan)
    return adapter


async def on_air(s: Stage, number: int, item: str = "q1") -> None:
    """The downlink was accepted and transmitted."""
    await s.advance()
    assert s.delivery(number) is Delivery.DELIVERED_TO_NS
    quiet(s).event("txack", s.workbench.device("m1"), downlinkId=1, queueItemId=item, gatewayId="g")
    await s.advance()
    assert s.delivery(number) is Delivery.SENT_TO_DEVICE


def one_at_a_time(s: Stage, numbers: Sequence[int]) -> None:
    """Never more than one owned row that is queued, suspended or under way (7.3)."""
    stands: dict[int, Status] = {}
    for change in s.feed:
        if isinstance(change, Interaction) and change.id in numbers:
            stands[change.id] = change.status
            assert sum(status in ACTIVE for status in stands.values()) <= 1, stands


def final(s: Stage, number: int) -> list[bool]:
    """``is_final`` of the failure history, newest first."""
    return [failure.is_final for failure in s.failures(number)]


# ---------------------------------------------------------------- section 9


def test_s12_a_device_that_is_not_registered_is_final() -> None:
    far = FarSide()
    far.http = [(404, {"code": 5, "message": "no such device"})]

    async def scene(s: Stage) -> None:
        number = s.send("m1", "READ_CREDIT")
        await s.ends(number)
        await s.advance(3 * HOUR)
        assert (s.status(number), s.now(number).attempts, s.code(number)) == (S.FAILED, 1, "DEVICE_NOT_REGISTERED")
        assert final(s, number) == [True]
        assert s.told(number) == [S.QUEUED, S.PROCESSING, S.FAILED]
        assert s.delivery(number) is Delivery.DELIVERY_FAILED
        assert len(far.calls) == 1

    play(scene, meter("m1", RADIO), kinds=[QuietRadio], far=far)


@pytest.mark.parametrize("first", ["up", "ack"])
def test_s13_up_and_ack_pair_in_either_order(first: str) -> None:
    async def scene(s: Stage) -> None:
        adapter, device = quiet(s), s.workbench.device("m1")
        heard = {"gatewayId": s.workbench.device("g1").serial, "rssi": -36, "snr": 10.5}
        number = s.send("m1", "READ_CREDIT")
        await on_air(s, number)
        await s.advance(1)
        reading = Credit(Decimal("12.34"), 1, 0)
        if first == "up":
            adapter.up(device, reading, "u1", heard)
        else:
            adapter.ack(device, "q1", "u1")
        await s.advance(3)
        assert s.status(number) is S.PROCESSING
        if first == "up":
            adapter.ack(device, "q1", "u1")
        else:
            adapter.up(device, reading, "u1", heard)
        await s.advance()
        done = s.now(number)
        assert (done.status, done.attempts, done.failure) == (S.SUCCESSFUL, 1, None)
        assert done.result is not None
        assert (done.result["kwh_credit_available"], done.result["is_on"]) == ("12.34", True)
        assert s.told(number) == [S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        now = s.workbench.clock.now()
        assert s.workbench.state("m1").last_contact == now
        facts = s.facts("m1")
        metrics = facts["connection_metrics"]
        assert [str(metrics[name]) for name in ("snr", "rssi")] == ["10.5", "-36"]
        assert facts["gateway"] == "g1"
        assert (facts["kwh_credit_available"], facts["is_on"], facts["balance"]) == ("12.34", True, "3331.80")
        await s.advance(HOUR)
        assert len(s.messages(number)) == 1
        assert s.now(number) == done

    play(scene, meter("m1", RADIO), kinds=[QuietRadio])


def test_s14_halves_more_than_ten_seconds_apart_do_not_pair() -> None:
    async def scene(s: Stage) -> None:
        adapter, device = quiet(s), s.workbench.device("m1")
        number = s.send("m1", "READ_CREDIT")
        await on_air(s, number)
        await s.advance(1)
        adapter.up(device, Credit(Decimal(1), 1, 0), "u1")
        await s.advance()
        heard = s.workbench.clock.now()
        await s.advance(10.5)
        adapter.ack(device, "q1", "u1")
        await s.advance()
        assert s.status(number) is S.PROCESSING
        assert s.delivery(number) is Delivery.SENT_TO_DEVICE
        await s.advance(0.5)
        assert s.delivery(number) is Delivery.TO_RETRY
        assert (s.status(number), s.code(number), final(s, number)) == (S.PROCESSING, "DEVICE_TIMEOUT", [False])
        assert s.workbench.state("m1").last_contact == heard  # an uplink without its ack is still a contact (5.2)
        await s.advance(2)
        assert s.now(number).attempts == 2

    play(scene, meter("m1", RADIO), kinds=[QuietRadio])


def test_s16_status_2_fails_at_once() -> None:
    far = FarSide()
    data = [{"id": 77, "status": 2, "name": "", "data": ""}]
    far.http = [
        (200, {"code": 0, "reason": "success", "result": [{"id": 77}]}),
        (200, {"code": 0, "reason": "success", "result": {"data": data}}),
    ]

    async def scene(s: Stage) -> None:
        number = s.send("v1", "TURN_ON")
        await s.advance(9)
        assert (s.status(number), len(far.calls)) == (S.PROCESSING, 1)
        await s.advance(1)
        done = s.now(number)
        assert (done.status, done.attempts, s.code(number)) == (S.FAILED, 1, "NOT_EXECUTED")
        assert final(s, number) == [True]
        assert s.told(number) == [S.QUEUED, S.PROCESSING, S.FAILED]
        assert s.delivery(number) is Delivery.DELIVERY_SUCCESSFUL
        assert s.workbench.state("v1").last_contact == s.workbench.clock.now()  # D-36
        await s.advance(3 * HOUR)
        assert (s.now(number), len(far.calls), s.rows("v1")) == (done, 2, [done])
        assert "is_on" not in s.facts("v1")

    play(scene, meter("v1", V2), kinds=[QuietV2], far=far)


def test_s18_a_paid_top_up_and_the_read_after_it() -> None:
    far = FarSide()
    far.readings["v1"] = {"kwh_credit_available": Decimal("16.3")}

    async def scene(s: Stage) -> None:
        assert s.workbench.add_orders([NewOrder(reference="o1", device="v1", amount=Decimal(1000))]) == 1
        (row,) = s.rows("v1")
        assert (row.command, row.origin, row.priority, row.order) == ("TOP_UP", Origin.ORDER, 50, "o1")
        assert row.params["transactive_kwh"] == "3.8"
        assert (s.order("o1").kwh, s.order("o1").interaction) == (Decimal("3.8"), row.id)
        await s.advance(1)
        assert [word.status for word in s.order("o1").notifications] == [DeliveryStatus.WAITING]
        assert s.order("o1").notifications[0].shows_token
        await s.ends(row.id)
        assert s.status(row.id) is S.SUCCESSFUL
        assert s.told(row.id) == [S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert [task.token for task in far.tasks(row.id)] == far.minted(row.id)
        assert s.order("o1").delivery is DeliveryStatus.DELIVERED
        (_top_up, read) = s.rows("v1")
        assert (read.command, read.origin, read.priority) == ("READ_CREDIT", Origin.FOLLOW_UP, 50)
        assert (read.followup_of, read.order) == (row.id, None)
        await s.ends(read.id)
        assert s.status(read.id) is S.SUCCESSFUL
        facts = s.facts("v1")
        assert (facts["kwh_credit_available"], facts["is_on"], facts["balance"]) == ("16.3", True, "4401.00")
        await s.advance(HOUR)
        order = s.order("o1")
        assert order.delivery is DeliveryStatus.DELIVERED
        assert [word.status for word in order.notifications] == [DeliveryStatus.WAITING, DeliveryStatus.DELIVERED]
        assert len(s.rows("v1")) == 2

    play(scene, meter("v1"), far=far)


def test_s19_a_rule_switches_full_service_on() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", SILENT)

    async def scene(s: Stage) -> None:
        rule = BatchRule(id=0, grid="grid", hour=1, minute=2, created=EPOCH, updated=EPOCH, fs_command=FsCommand.ON)
        rule = s.workbench.save_rule(rule)  # 01:02 in Lagos is two minutes from now
        await s.advance(119)
        assert s.workbench.batches() == ()
        await s.advance(1)
        (batch,) = s.workbench.batches()
        assert (batch.total, batch.processed, batch.rule, batch.fs_command) == (3, 0, rule.id, FsCommand.ON)
        assert s.facts("grid")["should_fs_be_on"] is True
        assert "is_fs_on" not in s.facts("grid")
        rows = [row for name in ("v1", "v2", "v3") for row in s.rows(name)]
        assert [(row.command, row.origin, row.batch) for row in rows] == [
            ("SET_POWER_LIMIT", Origin.BATCH, batch.id)
        ] * 3  # fmt: skip
        assert [row.params["target_power_limit"] for row in rows] == [0, 0, 0]
        assert [row.priority for row in rows] == [20, 20, 20]
        assert s.rows("v4") == s.rows("v5") == []
        assert [s.facts(name).get("power_limit_should_be") for name in ("v1", "v4", "v5")] == [0, None, None]
        await s.advance(30)
        batch = counted(s, batch)
        assert (batch.pending, batch.processing) == (0, 3)

        s.far.finish(rows[0].id)
        await s.ends(rows[0].id)
        await s.advance(5)
        batch = counted(s, batch)
        assert (batch.processing, batch.successful, batch.qualified_at, batch.completed_at) == (2, 1, None, None)
        s.far.finish(rows[1].id)
        await s.ends(rows[1].id)
        await s.advance(5)
        batch = counted(s, batch)
        assert (batch.successful, batch.completed_at) == (2, None)
        assert batch.qualified_at is not None
        assert s.facts("grid")["is_fs_on"] is True
        qualified = batch.qualified_at
        s.far.finish(rows[2].id, NO)
        await s.ends(rows[2].id)
        assert s.status(rows[2].id) is S.FAILED
        await s.advance(5)
        batch = counted(s, batch)
        assert (batch.pending, batch.processing, batch.successful, batch.failed, batch.processed) == (0, 0, 2, 1, 3)
        assert batch.qualified_at == qualified
        assert batch.completed_at is not None
        await s.advance(HOUR)
        assert len(s.workbench.batches()) == 1
        assert counted(s, batch) == batch
        assert s.status(rows[2].id) is S.FAILED
        assert [issue.kind for issue in s.workbench.issues()] == [IssueKind.UNEXPECTED_POWER_LIMIT]

    known = [commissioned(n, f"v{n}") for n in range(1, 5)] + [commissioned(5, "v5", FlowStatus.FAILED)]
    meters = [*(meter(f"v{n}") for n in (1, 2, 3)), meter("v4", is_manual_mode_on=True), meter("v5")]
    play(scene, *meters, grid={"timezone": "Africa/Lagos"}, records=known, far=far)


def counted(s: Stage, batch: Batch) -> Batch:
    return next(found for found in s.workbench.batches() if found.id == batch.id)


def test_s20_a_commissioning_from_registration_to_its_end() -> None:
    async def scene(s: Stage) -> None:
        number = s.workbench.install("v1")
        assert s.commissioning("v1").registration is FlowStatus.PENDING
        assert s.rows("v1") == []
        s.workbench.registered(number, ok=True)
        assert [step.command for step in s.commissioning("v1").steps] == FIVE_STEPS
        first = s.commissioning("v1")
        assert (first.status, first.registration) == (FlowStatus.PENDING, FlowStatus.SUCCESSFUL)
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.SUCCESSFUL)
        await s.advance(HOUR)
        rows = s.rows("v1")
        assert [row.command for row in rows] == FIVE_STEPS  # and no read after them
        assert [row.id for row in rows] == [step.interaction for step in s.commissioning("v1").steps]
        assert [row.priority for row in rows] == [100, 90, 80, 70, 60]
        assert {row.origin for row in rows} == {Origin.COMMISSIONING}
        assert {row.status for row in rows} == {S.SUCCESSFUL}
        assert rows[2].params["target_power_limit"] == 350
        assert s.told(rows[0].id) == [S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert s.told(rows[1].id) == [S.DEFERRED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert s.failures(rows[1].id) == []  # a planned step has no history entry (T3)
        one_at_a_time(s, [row.id for row in rows])
        told = s.commissioning_told(number)
        assert told == [FlowStatus.PENDING, FlowStatus.PROCESSING, FlowStatus.SUCCESSFUL]
        assert {step.status for step in s.commissioning("v1").steps} == {S.SUCCESSFUL}
        assert s.far.commands() == FIVE_STEPS
        issued = [mint.issued for mint in s.far.mints]
        assert [mint.command for mint in s.far.mints] == FIVE_STEPS[:3]
        assert min(b - a for a, b in itertools.pairwise(issued)) >= timedelta(seconds=60)  # D-14

    play(scene, meter("v1", power_limit_hps_mode=350))


def test_s21_a_step_that_fails_ends_the_commissioning() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", REFUSED)

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("v1")
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.FAILED)
        await s.advance(HOUR)
        steps = s.steps("v1")
        assert [step.command for step in steps] == [*FIVE_STEPS, "TOP_UP"]
        assert [step.status for step in steps] == [S.SUCCESSFUL] * 2 + [S.FAILED] + [S.ABORTED] * 3
        assert [step.status for step in s.commissioning("v1").steps] == [step.status for step in steps]
        assert s.told(steps[2].id) == [S.DEFERRED, S.QUEUED, S.PROCESSING, S.FAILED]
        assert (steps[2].attempts, final(s, steps[2].id)) == (1, [True])
        for step in steps[3:]:
            assert s.told(step.id) == [S.DEFERRED, S.ABORTED]
            assert (s.code(step.id), final(s, step.id), step.token) == ("COMMISSIONING_FAILED", [True], "")
        told = s.commissioning_told(number)
        assert told == [FlowStatus.PENDING, FlowStatus.PROCESSING, FlowStatus.FAILED]
        assert far.commands() == FIVE_STEPS[:3]
        assert len(s.rows("v1")) == 6  # no read after a failed step either
        assert "SET_POWER_LIMIT" in s.commissioning("v1").text

    play(scene, meter("v1"), grid=CREDITED, far=far)


def test_s22_a_silent_meter_is_commissioned_when_it_reports() -> None:
    async def scene(s: Stage) -> None:
        number = s.workbench.commission("m1")
        await s.advance(1800)
        first, *others = s.steps("m1")
        assert (first.status, first.deferred_kind, s.code(first.id)) == (S.DEFERRED, "OWNED", "NOT_SEEN_RECENTLY")
        assert final(s, first.id) == [False]
        assert {(row.status, row.failure) for row in others} == {(S.DEFERRED, None)}
        assert s.commissioning_told(number) == [FlowStatus.PENDING]
        assert (s.far.mints, s.far.sent) == ([], [])
        s.far.report("m1", kwh_credit_available="3")
        await s.advance()
        first = s.now(first.id)
        assert (first.status, first.priority, first.deferred_kind) == (S.QUEUED, 100, "")
        assert s.commissioning("m1").status is FlowStatus.PROCESSING
        s.far.report("m1")  # a second one does not start it twice
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.SUCCESSFUL)
        assert s.far.commands() == FIVE_STEPS
        told = s.commissioning_told(number)
        assert told == [FlowStatus.PENDING, FlowStatus.PROCESSING, FlowStatus.SUCCESSFUL]
        one_at_a_time(s, [row.id for row in s.steps("m1")])

    play(scene, meter("m1", RADIO), seen={"m1": timedelta(hours=2)})


PHASE_LOST = [
    refusing("TASK_NOT_SCHEDULED", Disposition.FINAL),
    Reply(answer=Answer(execution=Execution.FAILURE, code="NOT_EXECUTED", result={"voltage": Decimal(229)})),  # D-47
    says(voltage="overflow", phase="C"),  # D-47
]


@pytest.mark.parametrize("lost", PHASE_LOST)
def test_s23_a_phase_that_is_missing(lost: Reply) -> None:
    far = FarSide()
    far.on("READ_VOLTAGE", says(voltage=Decimal("230.0"), phase="A"), phase="A")
    far.on("READ_VOLTAGE", says(voltage=Decimal("231.4"), phase="B"), phase="B")
    far.on("READ_VOLTAGE", lost, phase="C")

    async def scene(s: Stage) -> None:
        number = s.send("v1", "READ_VOLTAGE")
        await s.ends(number)
        await s.advance(HOUR)
        done = s.now(number)
        assert done.status is S.FAILED
        assert done.result == {"voltage": "230.7", "phase": {"A": "230.0", "B": "231.4", "C": None}}
        assert s.told(number) == [S.QUEUED, S.PROCESSING, S.FAILED]
        ended = [c for c in s.feed if isinstance(c, Interaction) and c.id == number and c.is_settled]
        assert len(ended) == 1
        assert final(s, number) == [True]
        assert done.failure is not None
        assert "phase C" in done.failure.text
        assert [task.request.phase for task in far.tasks(number)] == ["A", "B", "C"]

    play(scene, meter("v1", phases="3"), far=far)


def report_of(kwh: str, *, is_open: bool = False) -> lora.Report:
    return lora.Report(
        freeze_time="2026-05-01 01:00",
        consumption_source_1=Decimal("100.25"),
        purchase_remain_source_1=Decimal(kwh),
        consumption_source_2=Decimal(0),
        purchase_remain_source_2=None,
        interval_demand=0,
        voltage=Decimal("229.9"),
        current=Decimal("1.5"),
        meter_status=MeterStatus.from_byte(int(is_open)),
    )


def test_s24_a_report_writes_the_meter_closes_an_issue_and_counts_once() -> None:
    async def scene(s: Stage) -> None:
        adapter, device = quiet(s), s.workbench.device("m1")
        issue = s.workbench.open_issue("m1", IssueKind.NO_CREDIT)
        other = s.workbench.open_issue("m1", IssueKind.UNEXPECTED_METER_STATUS)
        heard = {"gatewayId": s.workbench.device("g7").serial, "rssi": -80, "snr": 3}
        await s.advance(60)
        adapter.up(device, report_of("4.2"), "u1", heard)
        await s.advance()
        (row,) = s.rows("m1")
        assert (row.command, row.status, row.origin) == ("READ_REPORT", S.SUCCESSFUL, Origin.UNSOLICITED)
        assert [c.status for c in s.feed if isinstance(c, Interaction)] == [S.SUCCESSFUL]  # whole on arrival
        facts = s.facts("m1")
        assert float(facts["kwh_credit_available"]) == pytest.approx(4.2)  # a float32
        assert facts["is_on"] is True
        assert (facts["balance"], facts["gateway"]) == ("1134.00", "g7")
        assert s.workbench.state("m1").last_contact == s.workbench.clock.now()
        closed = {found.id: found for found in s.store.of(Issue)}
        assert (closed[issue.id].status, closed[issue.id].closed_at) == (IssueStatus.CLOSED, s.workbench.clock.now())
        assert [found.id for found in s.workbench.issues("m1")] == [other.id]
        await s.advance(60)
        adapter.up(device, report_of("4.2"), "u2", {**heard, "snr": 4})
        await s.advance()
        assert s.rows("m1") == [row]
        assert s.workbench.state("m1").last_contact == s.workbench.clock.now()
        assert Decimal(s.facts("m1")["connection_metrics"]["snr"]) == 4
        assert s.far.calls == []

    play(scene, meter("m1", RADIO), gateways=[gateway("g7", RADIO)], kinds=[QuietRadio])


def test_s25_a_foreign_write_waits_for_the_commissioning() -> None:
    far = FarSide()
    far.on("CLEAR_TAMPER", SILENT)

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("v1")
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.PROCESSING)
        await s.advance(1)
        s.workbench.add_orders([NewOrder(reference="o1", device="v1", kwh=Decimal(5))])
        top_up = s.rows("v1", Origin.ORDER)[0].id
        read = s.send("v1", "READ_CREDIT")
        await s.advance(HOUR)
        waits = s.now(top_up)
        assert (waits.status, waits.deferred_kind, s.code(top_up)) == (
            S.DEFERRED, "FOREIGN", "COMMISSIONING_IN_PROGRESS",
        )  # fmt: skip
        assert (waits.token, far.minted(top_up), s.order("o1").notifications) == ("", [], ())
        assert s.order("o1").delivery is DeliveryStatus.WAITING
        assert s.told(read) == [S.QUEUED]  # D-25: the meter is busy
        far.finish(s.steps("v1")[0].id)
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.SUCCESSFUL)
        await s.advance()
        assert s.status(top_up) is S.QUEUED
        assert far.minted(top_up) == []
        await s.ends(top_up, read)
        assert s.told(top_up) == [S.DEFERRED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert s.told(read) == [S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert (len(far.minted(top_up)), s.now(top_up).priority) == (1, 50)
        assert far.commands().index("TOP_UP") > far.commands().index("READ_POWER")
        assert s.commissioning_told(number)[-1] is FlowStatus.SUCCESSFUL
        notified = [word.status for word in s.order("o1").notifications]
        assert notified == [DeliveryStatus.WAITING, DeliveryStatus.DELIVERED]

    play(scene, meter("v1"), far=far)


def test_s26_a_retry_sends_the_stored_token() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", REFUSED, Reply())

    async def scene(s: Stage) -> None:
        number = s.send("v1", "SET_POWER_LIMIT", target_power_limit=500)
        await s.ends(number)
        assert (s.status(number), s.now(number).attempts) == (S.FAILED, 1)
        await s.until(lambda: bool(s.workbench.issues("v1")))  # after the read back: the limit is another
        assert s.now(number).status is S.FAILED
        s.workbench.retry(number)
        await s.advance()
        assert s.now(number).result is None
        assert [line.event for line in s.history(number) if line.event == "retry"] == ["retry"]
        assert [line.actor for line in s.history(number) if line.event == "retry"] == ["user"]
        await s.ends(number)
        done = s.now(number)
        told = s.told(number)
        assert told == [S.QUEUED, S.PROCESSING, S.FAILED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert done.failure is None
        assert len(far.minted(number)) == 1
        assert [task.token for task in far.tasks(number)] == [done.token, done.token]
        assert (done.token, s.facts("v1")["power_limit"]) == (far.mints[0].token, 500)
        assert s.workbench.issues("v1") == ()  # UNEXPECTED_POWER_LIMIT is disproved (6.5)
        assert sum(row.command == "SET_POWER_LIMIT" for row in s.rows("v1")) == 1

    play(scene, meter("v1", V2), far=far)


def test_s27_a_newer_relay_command_takes_the_place_of_a_waiting_one() -> None:
    async def scene(s: Stage) -> None:
        s.send("m2", "READ_CREDIT")  # starts the spacing of the lane
        off = s.send("m1", "TURN_OFF")
        assert s.status(off) is S.QUEUED
        on = s.send("m1", "TURN_ON")
        assert (s.status(off), s.code(off), final(s, off)) == (S.SUPERSEDED, "SUPERSEDED", [True])
        assert s.delivery(off) is Delivery.CANCELLED
        assert s.told(off) == [S.QUEUED, S.SUPERSEDED]
        await s.ends(on)
        await s.advance(HOUR)
        assert s.status(on) is S.SUCCESSFUL
        assert s.far.commands("m1") == ["TURN_ON"]
        assert (s.facts("m1")["is_on"], s.facts("m1")["should_be_on"]) == (True, True)
        assert s.status(off) is S.SUPERSEDED

    play(scene, meter("m1", RADIO), meter("m2", RADIO))


# ---------------------------------------------------------------- more of a commissioning


def test_d50_a_suspended_first_step_is_not_skipped() -> None:
    async def scene(s: Stage) -> None:
        number = s.workbench.commission("m1")
        first, second, *_others = s.steps("m1")
        assert (first.status, s.code(first.id)) == (S.SUSPENDED, "GRID_DOWN")
        await s.advance(60)
        s.far.report("m1", "2026-05-01 01:00")
        await s.advance(60)
        assert (s.status(first.id), s.status(second.id)) == (S.SUSPENDED, S.DEFERRED)
        s.grid(is_up=True)
        await s.until(lambda: s.status(first.id) is not S.SUSPENDED)
        assert (s.status(first.id), s.code(first.id)) == (S.DEFERRED, "AWAITING_CONTACT_AFTER_REJOIN")  # L4
        assert s.now(first.id).deferred_kind == "OWNED"
        await s.advance(1800)
        assert s.commissioning_told(number) == [FlowStatus.PENDING]
        assert s.far.sent == []
        s.far.report("m1", "2026-05-01 02:00")
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.SUCCESSFUL)
        assert s.far.commands() == FIVE_STEPS
        assert [failure.code for failure in s.failures(first.id)] == ["AWAITING_CONTACT_AFTER_REJOIN", "GRID_DOWN"]

    play(scene, meter("m1", RADIO), facts={"grid": {"is_hps_on": False}})


def test_d50_an_outage_in_the_middle_pauses_until_the_next_report() -> None:
    far = FarSide()
    far.on("CLEAR_TAMPER", SILENT)

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("m1")
        first, second, *_others = (row.id for row in s.steps("m1"))
        await s.until(lambda: s.status(first) is S.PROCESSING)
        await s.advance(1)
        s.grid(is_up=False)
        far.finish(first)
        await s.advance(1)
        assert (s.status(first), s.status(second), s.code(second)) == (S.SUCCESSFUL, S.SUSPENDED, "GRID_DOWN")  # D-21
        assert s.commissioning("m1").status is FlowStatus.PROCESSING
        await s.advance(120)  # the twin's refresh sees it dark
        s.grid(is_up=True)
        await s.advance(240)
        assert s.status(second) is S.SUSPENDED
        await s.until(lambda: s.status(second) is not S.SUSPENDED, within_s=180)
        await s.advance()
        assert (s.status(second), s.code(second)) == (S.DEFERRED, "AWAITING_CONTACT_AFTER_REJOIN")
        assert s.commissioning("m1").status is FlowStatus.PENDING
        assert far.minted(second) == []
        await s.advance(600)
        assert s.status(second) is S.DEFERRED
        s.far.report("m1")
        await s.advance()
        assert (s.status(second), s.commissioning("m1").status) == (S.QUEUED, FlowStatus.PROCESSING)
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.SUCCESSFUL)
        assert s.told(second) == [S.DEFERRED, S.SUSPENDED, S.DEFERRED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        pending, processing = FlowStatus.PENDING, FlowStatus.PROCESSING
        told = s.commissioning_told(number)
        assert told == [pending, processing, pending, processing, FlowStatus.SUCCESSFUL]
        assert far.commands() == FIVE_STEPS
        one_at_a_time(s, [row.id for row in s.steps("m1")])

    play(scene, meter("m1", RADIO), far=far)


@pytest.mark.parametrize("tries", [2, 3])
def test_d16_a_token_that_cannot_be_made_fails_the_commissioning(tries: int) -> None:
    far = FarSide()
    far.mint_failures["CLEAR_CREDIT"] = [Disposition.RETRY] * tries

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("m1")
        second = s.steps("m1")[1].id
        await s.until(lambda: s.commissioning("m1").status not in (FlowStatus.PENDING, FlowStatus.PROCESSING))
        await s.advance(60)
        assert len([mint for mint in far.mints if mint.number == second]) == 3
        assert len({mint.issued for mint in far.mints if mint.number == second}) == 1
        if tries == 2:
            assert s.commissioning("m1").status is FlowStatus.SUCCESSFUL
            return
        assert s.told(second) == [S.DEFERRED, S.QUEUED, S.FAILED]
        assert (s.code(second), final(s, second)) == ("TOKEN_FAILED", [True])
        assert [row.status for row in s.steps("m1")] == [S.SUCCESSFUL, S.FAILED] + [S.ABORTED] * 3
        assert s.commissioning("m1").status is FlowStatus.FAILED
        new = s.workbench.retry_commissioning(number)  # not stuck: it may be started again
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.SUCCESSFUL)
        assert s.commissioning("m1").id == new

    play(scene, meter("m1", RADIO), far=far)


def test_a_retry_of_a_commissioning_passes_a_silent_meter() -> None:
    async def scene(s: Stage) -> None:
        old = s.workbench.commission("m1")
        rows = [row.id for row in s.steps("m1")]
        assert s.code(rows[0]) == "NOT_SEEN_RECENTLY"
        new = s.workbench.retry_commissioning(old)
        assert [s.status(row) for row in rows] == [S.ABORTED] * 5
        assert s.commissioning_told(old) == [FlowStatus.PENDING, FlowStatus.FAILED]
        first = s.steps("m1")[0].id
        assert (s.status(first), s.commissioning("m1").retry_of) == (S.QUEUED, old)  # L3, not L5
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.PROCESSING)
        with pytest.raises(LocalProtocolError, match="PROCESSING"):
            s.workbench.retry_commissioning(new)
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.SUCCESSFUL)
        with pytest.raises(LocalProtocolError, match="SUCCESSFUL"):
            s.workbench.retry_commissioning(new)
        assert s.far.commands() == FIVE_STEPS

    play(scene, meter("m1", RADIO), seen={"m1": timedelta(hours=30)})


def test_a_retry_of_a_commissioning_stops_at_a_dark_grid_and_then_is_one_like_others() -> None:
    async def scene(s: Stage) -> None:
        old = s.workbench.commission("m1")
        first = s.steps("m1")[0].id
        assert s.status(first) is S.SUSPENDED
        s.workbench.retry_commissioning(old)
        assert (s.status(first), s.code(first)) == (S.ABORTED, "COMMISSIONING_FAILED")  # D-51
        again = s.steps("m1")[0].id
        assert (s.status(again), s.code(again)) == (S.SUSPENDED, "GRID_DOWN")
        s.grid(is_up=True)
        await s.until(lambda: s.status(again) is not S.SUSPENDED)
        assert (s.status(again), s.code(again)) == (S.DEFERRED, "AWAITING_CONTACT_AFTER_REJOIN")

    play(scene, meter("m1", RADIO), facts={"grid": {"is_hps_on": False}})


@pytest.mark.parametrize(("ago", "status"), [(0, S.QUEUED), (1, S.DEFERRED)])
def test_l5_exactly_59_minutes_are_fresh(ago: int, status: Status) -> None:
    async def scene(s: Stage) -> None:
        s.workbench.commission("m1")
        assert s.steps("m1")[0].status is status

    play(scene, meter("m1", RADIO), seen={"m1": timedelta(minutes=59, seconds=ago)})


def test_uninstall_in_the_middle() -> None:
    far = FarSide()
    far.on("CLEAR_TAMPER", SILENT)

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("v1")
        steps = [row.id for row in s.steps("v1")]
        await s.until(lambda: s.status(steps[0]) is S.PROCESSING)
        await s.advance(1)
        s.workbench.add_orders([NewOrder(reference="o1", device="v1", kwh=Decimal(5))])
        top_up = s.rows("v1", Origin.ORDER)[0].id
        read = s.send("v1", "READ_CREDIT")
        s.workbench.open_issue("v1", IssueKind.UNEXPECTED_METER_STATUS)
        assert [s.status(row) for row in (top_up, read)] == [S.DEFERRED, S.QUEUED]
        s.workbench.uninstall("v1")
        await s.advance(60)
        for row in (*steps, top_up, read):
            assert (s.status(row), final(s, row)[0]) == (S.ABORTED, True)
        assert s.commissioning_told(number)[-1] is FlowStatus.FAILED
        assert s.workbench.issues("v1") == ()
        assert "gateway" not in s.workbench.device("v1").attributes
        await s.advance(HOUR)
        assert far.commands() == ["CLEAR_TAMPER"]
        assert s.status(steps[0]) is S.ABORTED

    play(scene, meter("v1"), far=far)


def test_d49_values_out_of_the_ordinary_are_warnings() -> None:
    far = FarSide()
    far.readings["v1"] = {"voltage": Decimal("180.0")}

    async def scene(s: Stage) -> None:
        s.workbench.commission("v1")
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.SUCCESSFUL)
        warnings = {step.command: step.warning for step in s.commissioning("v1").steps}
        assert "180.0" in warnings["READ_VOLTAGE"]
        assert warnings["READ_POWER"] == ""

    play(scene, meter("v1"), far=far)


def test_the_limit_is_chosen_when_its_step_is_released() -> None:
    far = FarSide()
    far.on("CLEAR_TAMPER", SILENT)

    async def scene(s: Stage) -> None:
        s.workbench.commission("v1")
        steps = [row.id for row in s.steps("v1")]
        await s.until(lambda: s.status(steps[0]) is S.PROCESSING)
        assert s.now(steps[2]).params["target_power_limit"] == 200
        rule = BatchRule(id=0, grid="grid", hour=0, minute=2, created=EPOCH, updated=EPOCH, fs_command=FsCommand.ON)
        s.workbench.save_rule(rule)
        await s.advance(180)
        far.finish(steps[0])
        await s.ends(steps[2])
        assert s.now(steps[2]).params["target_power_limit"] == 0
        assert next(mint.params for mint in far.mints if mint.number == steps[2])["target_power_limit"] == 0

    play(scene, meter("v1"), far=far)


def test_d52_a_stuck_commissioning_can_be_given_up_after_two_hours() -> None:
    far = FarSide()
    far.on("CLEAR_TAMPER", SILENT)

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("v1")
        steps = [row.id for row in s.steps("v1")]
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.PROCESSING)
        await s.advance(2 * HOUR - 60)
        with pytest.raises(LocalProtocolError, match="two hours"):
            s.workbench.fail_commissioning(number)
        await s.advance(61)
        s.workbench.fail_commissioning(number)
        assert s.commissioning("v1").status is FlowStatus.FAILED
        assert [s.status(row) for row in steps] == [S.PROCESSING] + [S.ABORTED] * 4
        far.finish(steps[0])
        await s.ends(steps[0])
        await s.advance(60)
        assert s.commissioning("v1").status is FlowStatus.FAILED  # its end advances nothing (D-20)
        assert far.commands() == ["CLEAR_TAMPER"]

    play(scene, meter("v1"), far=far)


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_radio_meter_is_registered_first(is_refused: bool) -> None:
    far = FarSide()
    if is_refused:
        far.on("REGISTER", refusing("REGISTRATION_FAILED", Disposition.FINAL))

    async def scene(s: Stage) -> None:
        number = s.workbench.install("m1")
        assert s.commissioning("m1").registration is FlowStatus.PROCESSING
        await s.until(lambda: not s.commissioning("m1").is_running)
        await s.advance(60)
        if is_refused:  # D-48
            assert s.commissioning("m1").registration is FlowStatus.FAILED
            assert s.commissioning_told(number)[-1] is FlowStatus.FAILED
            assert far.commands() == ["REGISTER"]
            assert [row.command for row in s.rows("m1")] == ["REGISTER"]
            return
        assert s.commissioning("m1").registration is FlowStatus.SUCCESSFUL
        assert s.commissioning("m1").status is FlowStatus.SUCCESSFUL
        assert far.commands() == ["REGISTER", *FIVE_STEPS]
        assert [step.command for step in s.commissioning("m1").steps] == FIVE_STEPS

    play(scene, meter("m1", RADIO), far=far)


def test_a_foreign_read_that_succeeds_wakes_a_paused_commissioning() -> None:
    async def scene(s: Stage) -> None:
        s.workbench.commission("m1")
        read = s.send("m1", "READ_CREDIT")
        assert s.status(read) is S.PROCESSING  # reads pass (D-05)
        await s.ends(read)
        assert s.commissioning("m1").status is FlowStatus.PROCESSING
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.SUCCESSFUL)
        assert s.far.commands() == ["READ_CREDIT", *FIVE_STEPS]

    play(scene, meter("m1", RADIO), seen={"m1": timedelta(hours=2)})


def test_d35_the_same_report_again_wakes_a_paused_commissioning() -> None:
    async def scene(s: Stage) -> None:
        s.far.report("m1")
        await s.advance()
        await s.skip(2 * HOUR)
        s.workbench.commission("m1")
        first = s.steps("m1")[0].id
        assert s.code(first) == "NOT_SEEN_RECENTLY"
        s.far.report("m1")
        await s.advance()
        assert (s.status(first), len(s.rows("m1", Origin.UNSOLICITED))) == (S.QUEUED, 1)

    play(scene, meter("m1", RADIO))


def test_a_failed_step_that_a_person_retries_does_not_revive_its_commissioning() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", REFUSED, Reply())

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("v1")
        step = s.steps("v1")[2].id
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.FAILED)
        s.workbench.retry(step)
        await s.ends(step)
        await s.advance(60)
        assert (s.status(step), len(far.minted(step))) == (S.SUCCESSFUL, 1)
        assert s.commissioning_told(number)[-1] is FlowStatus.FAILED
        assert far.commands() == [*FIVE_STEPS[:3], "SET_POWER_LIMIT"]

    play(scene, meter("v1"), far=far)


def test_a_pull_meter_never_pauses() -> None:
    far = FarSide()
    far.on("CLEAR_TAMPER", SILENT)

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("v1")
        first, second, *_others = (row.id for row in s.steps("v1"))
        await s.until(lambda: s.status(first) is S.PROCESSING)
        await s.advance(1)
        s.grid(is_up=False)
        far.finish(first)
        await s.ends(first)
        await s.advance(120)
        assert (s.status(second), s.code(second)) == (S.SUSPENDED, "GRID_DOWN")
        s.grid(is_up=True)
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.SUCCESSFUL)
        assert s.told(second) == [S.DEFERRED, S.SUSPENDED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        told = s.commissioning_told(number)
        assert told == [FlowStatus.PENDING, FlowStatus.PROCESSING, FlowStatus.SUCCESSFUL]

    play(scene, meter("v1"), far=far)


@pytest.mark.parametrize("which", [0, 3])
def test_a_step_that_a_person_cancels_ends_the_commissioning(which: int) -> None:
    async def scene(s: Stage) -> None:
        number = s.workbench.commission("m1")
        rows = [row.id for row in s.steps("m1")]
        assert s.workbench.cancel(rows[which]) is CancelResult.CANCELLED
        await s.advance(1)
        assert [s.status(row) for row in rows] == [S.ABORTED] * 5
        assert s.code(rows[which]) == "CANCELLED"
        assert s.commissioning_told(number) == [FlowStatus.PENDING, FlowStatus.FAILED]
        assert s.far.mints == []

    play(scene, meter("m1", RADIO), seen={"m1": timedelta(hours=2)})


def test_t15_a_suspended_write_finds_a_commissioning_when_the_grid_is_back() -> None:
    async def scene(s: Stage) -> None:
        top_up = s.send("v1", "TOP_UP", transactive_kwh=1)
        assert s.status(top_up) is S.SUSPENDED
        s.workbench.commission("v1")
        await s.advance(90)
        s.grid(is_up=True)
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.SUCCESSFUL)
        await s.ends(top_up)
        assert s.told(top_up) == [S.SUSPENDED, S.DEFERRED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert [failure.code for failure in s.failures(top_up)] == ["COMMISSIONING_IN_PROGRESS", "GRID_DOWN"]
        await s.advance(60)
        assert s.far.commands() == [*FIVE_STEPS, "TOP_UP", "READ_CREDIT"]

    play(scene, meter("v1"), facts={"grid": {"is_hps_on": False}})


def test_t15_a_foreign_write_that_was_suspended_before_waits_seven_days_at_most() -> None:
    async def scene(s: Stage) -> None:
        waits = s.send("m1", "TURN_ON")
        s.workbench.commission("m1")
        await s.advance(90)
        s.grid(is_up=True)
        await s.until(lambda: s.status(waits) is S.DEFERRED)
        assert (s.now(waits).deferred_kind, s.code(waits)) == ("FOREIGN", "COMMISSIONING_IN_PROGRESS")
        await s.skip(7 * 24 * HOUR)
        await s.advance(15 * 60 + 1)
        assert (s.status(waits), s.code(waits)) == (S.ABORTED, "EXPIRED")

    play(scene, meter("m1", RADIO), facts={"grid": {"is_hps_on": False}})


# ---------------------------------------------------------------- the field


def test_d08_recovery_grace_and_the_contact_that_ends_it() -> None:
    async def scene(s: Stage) -> None:
        heard, silent = s.send("m1", "TURN_ON"), s.send("m2", "TURN_ON")
        assert {s.code(heard), s.code(silent)} == {"GRID_DOWN"}
        await s.advance(60)
        s.grid(is_up=True)
        await s.until(lambda: s.code(silent) != "GRID_DOWN")
        confirmed = s.loop.time()
        for number in (heard, silent):
            assert (s.status(number), s.code(number)) == (S.SUSPENDED, "AWAITING_FIRST_CONTACT")
        await s.advance(1800)
        s.far.report("m1")
        await s.ends(heard)
        assert s.told(heard) == [S.SUSPENDED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        await s.advance(confirmed + 75 * 60 - 1 - s.loop.time())
        assert s.status(silent) is S.SUSPENDED
        await s.advance(15 * 60 + 2)  # the next sweep
        assert (s.status(silent), s.code(silent), final(s, silent)[0]) == (S.ABORTED, "UNREACHABLE", True)
        codes = [failure.code for failure in s.failures(silent)]
        assert list(dict.fromkeys(codes)) == ["UNREACHABLE", "AWAITING_FIRST_CONTACT", "GRID_DOWN"]
        assert s.far.commands() == ["TURN_ON"]

    age = timedelta(hours=30)
    devices = [meter("m1", RADIO), meter("m2", RADIO)]
    play(scene, *devices, facts={"grid": {"is_hps_on": False}}, seen={"m1": age, "m2": age})


def test_d05_force_passes_and_its_success_wakes_the_commissioning() -> None:
    async def scene(s: Stage) -> None:
        s.workbench.commission("m1")
        waits = s.send("m1", "SET_POWER_LIMIT", target_power_limit=100)
        assert (s.status(waits), s.code(waits)) == (S.DEFERRED, "COMMISSIONING_IN_PROGRESS")
        forced = s.workbench.submit("m1", "TURN_ON", force=True)
        await s.ends(forced)
        assert s.told(forced) == [S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        await s.ends(waits)
        assert s.commissioning("m1").status is FlowStatus.SUCCESSFUL
        commands = [command for command in s.far.commands() if command != "READ_CREDIT"]
        assert commands == ["TURN_ON", *FIVE_STEPS, "SET_POWER_LIMIT"]
        assert s.facts("m1")["power_limit"] == 100

    play(scene, meter("m1", RADIO), seen={"m1": timedelta(hours=2)})


def test_d05_a_foreign_write_waits_seven_days_at_most() -> None:
    async def scene(s: Stage) -> None:
        number = s.workbench.commission("m1")
        waits = s.send("m1", "TURN_ON")
        assert (s.status(waits), s.now(waits).deferred_kind) == (S.DEFERRED, "FOREIGN")
        await s.skip(7 * 24 * HOUR - 60)
        assert s.status(waits) is S.DEFERRED
        await s.advance(61)
        assert (s.status(waits), s.code(waits), final(s, waits)) == (S.ABORTED, "EXPIRED", [True, False])
        assert s.commissioning_told(number) == [FlowStatus.PENDING]  # an owned step never expires
        assert s.steps("m1")[0].status is S.DEFERRED

    play(scene, meter("m1", RADIO), seen={"m1": None})


# ---------------------------------------------------------------- batches, orders, replacing and joining


def test_d45_an_unsupported_meter_counts_at_once() -> None:
    async def scene(s: Stage) -> None:
        number = s.workbench.run_batch(["m1", "v1"], "READ_VERSION")
        (batch,) = s.workbench.batches()
        assert (batch.id, batch.total, batch.failed, batch.completed_at) == (number, 2, 1, None)
        (row,) = s.rows("m1")
        assert (row.status, s.code(row.id), final(s, row.id)) == (S.ABORTED, "UNSUPPORTED", [True])
        assert s.messages(row.id) == []
        (read,) = s.rows("v1")
        assert (read.priority, read.origin) == (10, Origin.BATCH)
        await s.ends(read.id)
        await s.advance(6)
        done = counted(s, batch)
        assert (done.successful, done.failed, done.processed) == (1, 1, 2)
        assert done.completed_at is not None
        hopeless = s.workbench.run_batch(["m1"], "READ_VERSION")
        assert [b.completed_at is not None for b in s.workbench.batches() if b.id == hopeless] == [True]

    play(scene, meter("m1", RADIO), meter("v1"))


def test_d45_the_last_count_is_not_lost_where_timers_are_coarse() -> None:
    async def scene(s: Stage) -> None:
        loop, call_later = s.loop, s.loop.call_later

        def early(delay: float, callback: Callable[..., object], *args: Any, **more: Any) -> asyncio.TimerHandle:
            return call_later(delay * 0.95, callback, *args, **more)  # as Qt's coarse timers do

        loop.call_later = early  # type: ignore[assignment]
        s.workbench.run_batch(["v1", "v2"], "READ_CREDIT")
        rows = [s.rows(name)[0].id for name in ("v1", "v2")]
        await s.ends(*rows)
        await s.advance(60)
        (batch,) = s.workbench.batches()
        assert (batch.successful, batch.completed_at is not None) == (2, True)

    play(scene, meter("v1"), meter("v2"))


def test_d45_a_batch_without_meters_is_complete() -> None:
    async def scene(s: Stage) -> None:
        rule = BatchRule(id=0, grid="grid", hour=0, minute=1, created=EPOCH, updated=EPOCH, command="READ_CREDIT")
        s.workbench.save_rule(rule)
        await s.advance(61)
        (batch,) = s.workbench.batches()
        assert (batch.total, batch.completed_at is not None) == (0, True)

    play(scene, meter("v1"), records=[commissioned(1, "v1", FlowStatus.FAILED)])


@pytest.mark.parametrize("case", ["dark", "silent"])
def test_d15_a_paid_top_up_has_its_token_whatever_the_verdict(case: str) -> None:
    facts = {"grid": {"is_hps_on": case != "dark"}}
    status, code = (S.SUSPENDED, "GRID_DOWN") if case == "dark" else (S.ABORTED, "UNREACHABLE")
    given = DeliveryStatus.NOT_DELIVERED_TOKEN_AVAILABLE

    async def scene(s: Stage) -> None:
        s.workbench.add_orders([NewOrder(reference="o1", device="m1", kwh=Decimal("2.5"))])
        row = s.rows("m1")[0].id
        other = s.send("m1", "SET_POWER_LIMIT", target_power_limit=5)
        assert (s.status(row), s.code(row)) == (status, code)
        await s.advance(10)
        assert (len(s.far.minted(row)), s.far.minted(other)) == (1, [])
        assert s.now(row).token == s.far.minted(row)[0]
        assert (s.status(row), s.far.sent) == (status, [])
        if case == "dark":
            assert [word.status for word in s.order("o1").notifications] == [DeliveryStatus.WAITING]
            assert s.workbench.cancel(row) is CancelResult.CANCELLED
            await s.advance()
        order = s.order("o1")
        assert order.delivery is given
        assert [word.status for word in order.notifications] == [DeliveryStatus.WAITING, given]
        assert all(word.shows_token for word in order.notifications)

    play(scene, meter("m1", RADIO), facts=facts, seen={"m1": timedelta(hours=30 if case == "silent" else 1)})


def test_d15_a_suspended_order_leaves_with_the_token_it_has() -> None:
    async def scene(s: Stage) -> None:
        s.workbench.add_orders([NewOrder(reference="o1", device="v1", kwh=Decimal("2.5"))])
        row = s.rows("v1")[0].id
        await s.advance(90)
        s.grid(is_up=True)
        await s.ends(row)
        assert s.told(row) == [S.SUSPENDED, S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert (len(s.far.minted(row)), s.far.tasks(row)[0].token) == (1, s.far.minted(row)[0])
        notified = [word.status for word in s.order("o1").notifications]
        assert notified == [DeliveryStatus.WAITING, DeliveryStatus.DELIVERED]

    play(scene, meter("v1"), facts={"grid": {"is_hps_on": False}})


@pytest.mark.parametrize("end", ["cancelled", "uninstalled", "expired"])
def test_d41_an_order_that_was_deferred_and_given_up_is_told(end: str) -> None:
    async def scene(s: Stage) -> None:
        s.workbench.commission("m1")
        s.workbench.add_orders([NewOrder(reference="o1", device="m1", kwh=Decimal(5))])
        row = s.rows("m1", Origin.ORDER)[0].id
        assert s.status(row) is S.DEFERRED
        match end:
            case "cancelled":
                s.workbench.cancel(row)
            case "uninstalled":
                s.workbench.uninstall("m1")
            case _:
                await s.skip(7 * 24 * HOUR)
        await s.advance(HOUR)
        assert (s.status(row), s.far.mints) == (S.ABORTED, [])  # deferred: no token was made (D-15)
        order = s.order("o1")
        assert order.delivery is DeliveryStatus.NOT_DELIVERED
        assert [word.status for word in order.notifications] == [DeliveryStatus.NOT_DELIVERED]

    play(scene, meter("m1", RADIO), seen={"m1": timedelta(hours=2)})


def test_g5_identical_reads_share_one_downlink() -> None:
    far = FarSide()

    async def scene(s: Stage) -> None:
        s.send("m2", "READ_POWER")  # starts the spacing of the lane
        batch = s.workbench.run_batch(["m1"], "READ_CREDIT")
        first = s.rows("m1")[0].id
        second = s.send("m1", "READ_CREDIT")
        assert [s.now(n).priority for n in (first, second)] == [10, 30]
        assert s.messages(first)[0].priority == 30
        await s.ends(first, second)
        assert far.commands("m1") == ["READ_CREDIT"]
        assert [s.status(n) for n in (first, second)] == [S.SUCCESSFUL] * 2
        assert s.now(first).result == s.now(second).result
        await s.advance(6)
        assert [b.successful for b in s.workbench.batches() if b.id == batch] == [1]

    play(scene, meter("m1", RADIO), meter("m2", RADIO), far=far)


def test_g3_what_was_handed_over_is_not_superseded_and_the_newer_limit_stays() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", SILENT, Reply())

    async def scene(s: Stage) -> None:
        old = s.send("v1", "SET_POWER_LIMIT", target_power_limit=500)
        await s.until(lambda: s.status(old) is S.PROCESSING)
        await s.advance(1)
        new = s.send("v1", "SET_POWER_LIMIT", target_power_limit=300)
        await s.advance(60)
        assert (s.status(old), s.status(new)) == (S.PROCESSING, S.QUEUED)
        far.finish(old)
        await s.ends(old, new)
        assert [s.status(n) for n in (old, new)] == [S.SUCCESSFUL] * 2
        assert (s.facts("v1")["power_limit"], s.facts("v1")["power_limit_should_be"]) == (300, 300)

    play(scene, meter("v1"), far=far)


def test_g3_a_late_answer_to_a_superseded_limit_changes_nothing() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", Reply(nack=True), Reply())

    async def scene(s: Stage) -> None:
        old = s.send("m1", "SET_POWER_LIMIT", target_power_limit=500)
        await s.until(lambda: s.code(old) == "NACK")
        assert s.delivery(old) is Delivery.TO_RETRY
        new = s.send("m1", "SET_POWER_LIMIT", target_power_limit=300)
        assert s.told(old) == [S.QUEUED, S.PROCESSING, S.SUPERSEDED]
        await s.ends(new)
        far.finish(old)
        await s.advance(60)
        assert s.status(old) is S.SUPERSEDED
        assert s.facts("m1")["power_limit"] == 300
        assert [task.number for task in far.sent] == [old, new]

    play(scene, meter("m1", RADIO), far=far)


def test_d24_a_late_answer_after_the_last_try_is_a_success() -> None:
    far = FarSide()
    far.on("READ_CREDIT", SILENT)

    async def scene(s: Stage) -> None:
        number = s.send("m1", "READ_CREDIT")
        await s.ends(number)
        assert (s.status(number), s.now(number).attempts) == (S.FAILED, 12)
        assert final(s, number) == [True] + [False] * 11
        await s.advance(300)
        far.finish(number)
        await s.advance()
        assert s.told(number) == [S.QUEUED, S.PROCESSING, S.FAILED, S.SUCCESSFUL]
        assert s.facts("m1")["kwh_credit_available"] == "12.5"

    play(scene, meter("m1", RADIO), far=far)


def test_d30_a_three_phase_read_is_cancelled_whole_or_not_at_all() -> None:
    far = FarSide()
    far.on("READ_VOLTAGE", SILENT, phase="A")

    async def scene(s: Stage) -> None:
        number = s.send("v1", "READ_VOLTAGE")
        await s.until(lambda: s.status(number) is S.PROCESSING)
        await s.advance(1)
        assert s.workbench.cancel(number) is CancelResult.NOT_CANCELLABLE
        states = [message.state for message in s.messages(number)]
        assert states == [Delivery.DELIVERED_TO_NS, Delivery.QUEUED, Delivery.QUEUED]
        far.finish(number, phase="A")
        await s.ends(number)
        assert s.status(number) is S.SUCCESSFUL
        waits = s.send("v1", "TURN_ON")
        assert s.status(waits) is S.PROCESSING
        second = s.send("v1", "READ_VOLTAGE")
        assert s.workbench.cancel(second) is CancelResult.CANCELLED
        assert (s.status(second), s.code(second)) == (S.ABORTED, "CANCELLED")
        await s.ends(waits)
        await s.advance(60)
        assert [task.number for task in far.sent] == [number] * 3 + [waits]

    play(scene, meter("v1", phases="3"), far=far)


def test_d53_a_dead_meter_gives_its_slot_back_after_ten_minutes() -> None:
    far = FarSide()
    far.on("READ_CREDIT", SILENT)

    async def scene(s: Stage) -> None:
        numbers = [s.send(f"v{n}", "READ_CREDIT") for n in range(6)]
        await s.advance(599)
        assert [s.status(n) for n in numbers] == [S.PROCESSING] * 5 + [S.QUEUED]
        await s.advance(2)
        assert s.status(numbers[5]) is S.PROCESSING
        far.finish(numbers[0])  # it is still looked at
        await s.ends(numbers[0])
        assert s.status(numbers[0]) is S.SUCCESSFUL

    play(scene, *(meter(f"v{n}") for n in range(6)), far=far)


def test_d22_a_newer_relay_command_takes_the_place_of_a_suspended_one() -> None:
    async def scene(s: Stage) -> None:
        off, top_up = s.send("v1", "TURN_OFF"), s.send("v1", "TOP_UP", transactive_kwh=1)
        assert {s.code(off), s.code(top_up)} == {"GRID_DOWN"}
        await s.advance(90)
        s.grid(is_up=True)
        on, second = s.send("v1", "TURN_ON"), s.send("v1", "TOP_UP", transactive_kwh=2)
        assert s.told(off) == [S.SUSPENDED, S.SUPERSEDED]
        assert (s.status(second), s.code(second)) == (S.SUSPENDED, "BEHIND_SUSPENDED")
        await s.ends(on, top_up, second)
        sent = [task.number for task in s.far.sent if task.command != "READ_CREDIT"]
        assert sent == [on, top_up, second]
        assert len({task.token for task in s.far.sent if task.command == "TOP_UP"}) == 2

    play(scene, meter("v1"), facts={"grid": {"is_hps_on": False}})


def test_d25_clear_credit_goes_before_a_waiting_top_up_and_a_retry_holds_younger_ones_back() -> None:
    far = FarSide()
    far.on("TOP_UP", refusing("TASK_NOT_SCHEDULED", Disposition.RETRY), Reply())

    async def scene(s: Stage) -> None:
        first = s.send("v1", "TOP_UP", transactive_kwh=1)
        await s.until(lambda: s.code(first) == "TASK_NOT_SCHEDULED")
        second = s.send("v1", "TOP_UP", transactive_kwh=2)
        clear = s.send("v1", "CLEAR_CREDIT")
        await s.ends(first, second, clear)
        sent = [task.number for task in far.sent if task.command != "READ_CREDIT"]
        assert sent == [first, clear, first, second]
        assert [s.now(n).priority for n in (first, second, clear)] == [50, 50, 60]
        assert {task.token for task in far.tasks(first)} == {s.now(first).token}
        reads = s.rows("v1", Origin.FOLLOW_UP)
        mirrored = {s.now(read.followup_of or 0).command: read.priority for read in reads}
        assert mirrored["CLEAR_CREDIT"] == 60

    play(scene, meter("v1"), far=far)


def test_g9_a_read_that_shows_the_effect_turns_a_failure_into_a_success() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", REFUSED)
    far.readings["v1"] = {"power_limit": 500}

    async def scene(s: Stage) -> None:
        number = s.workbench.run_batch(["v1"], "SET_POWER_LIMIT", {"target_power_limit": 500})
        row = s.rows("v1")[0].id
        await s.until(lambda: len(s.rows("v1")) == 2)
        read = s.rows("v1")[1]
        assert (read.command, read.priority, read.followup_of) == ("READ_POWER_LIMIT", 20, row)
        await s.ends(read.id)
        await s.advance(10)
        assert s.told(row) == [S.QUEUED, S.PROCESSING, S.FAILED, S.SUCCESSFUL]  # T20
        assert [line.actor for line in s.history(row) if line.event == "LATE_SUCCESS"] == ["triage"]
        assert s.workbench.issues("v1") == ()
        batch = next(batch for batch in s.workbench.batches() if batch.id == number)
        assert (batch.successful, batch.failed, s.facts("v1")["power_limit"]) == (1, 0, 500)
        assert s.far.commands() == ["SET_POWER_LIMIT", "READ_POWER_LIMIT"]

    play(scene, meter("v1"), far=far)


def test_d39_a_read_that_waits_already_serves_as_the_follow_up() -> None:
    async def scene(s: Stage) -> None:
        top_up = s.send("v1", "TOP_UP", transactive_kwh=1)
        await s.until(lambda: s.status(top_up) is S.PROCESSING)
        read = s.send("v1", "READ_CREDIT")
        assert s.status(read) is S.QUEUED
        await s.ends(top_up, read)
        await s.advance(60)
        assert s.far.commands() == ["TOP_UP", "READ_CREDIT"]
        assert {row.shared_with for row in s.rows("v1", Origin.FOLLOW_UP)} <= {read}
        assert {row.status for row in s.rows("v1")} == {S.SUCCESSFUL}

    play(scene, meter("v1"))


def test_a_rule_of_a_dual_meter_grid_switches_full_service_meters_only_and_once() -> None:
    async def scene(s: Stage) -> None:
        rule = BatchRule(
            id=0, grid="grid", hour=0, minute=1, created=EPOCH, updated=EPOCH, fs_command=FsCommand.OFF,
            is_repeating=False,
        )  # fmt: skip
        s.workbench.save_rule(rule)
        await s.advance(61)
        assert s.workbench.rules() == ()
        assert s.rows("v1") == []
        (row,) = s.rows("v2")
        assert row.command == "TURN_OFF"
        assert (s.facts("v2")["should_be_on"], s.facts("grid")["should_fs_be_on"]) == (False, False)
        await s.ends(row.id)
        await s.advance(6)
        (batch,) = s.workbench.batches()
        assert (batch.total, batch.qualified_at is not None, batch.completed_at is not None) == (1, True, True)
        assert (s.facts("grid")["is_fs_on"], s.facts("v2")["is_on"]) == (False, False)
        await s.skip(24 * HOUR)
        assert len(s.rows("v2")) == 1

    meters = [meter("v1"), meter("v2", meter_type="FS")]
    play(scene, *meters, grid={"uses_dual_meter_setup": True})


def test_d11_three_phases_of_power_are_summed_on_the_radio() -> None:
    far = FarSide()
    for phase, watts in zip("ABC", ("100", "50.5", "0"), strict=True):
        far.on("READ_POWER", says(power_w=Decimal(watts), phase=phase), phase=phase)

    async def scene(s: Stage) -> None:
        number = s.send("m1", "READ_POWER")
        await s.ends(number)
        await s.advance()
        assert s.now(number).result == {"power_w": "150.5", "phase": {"A": "100", "B": "50.5", "C": "0"}}
        assert s.told(number) == [S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert s.facts("m1")["power_w"] == "150.5"  # D-31

    play(scene, meter("m1", RADIO, phases="3"), far=far)


def test_d19_a_retried_three_phase_read_asks_all_phases_again() -> None:
    far = FarSide()
    far.on("READ_VOLTAGE", REFUSED, Reply(), phase="B")

    async def scene(s: Stage) -> None:
        number = s.send("v1", "READ_VOLTAGE")
        await s.ends(number)
        assert (s.status(number), s.code(number)) == (S.FAILED, "PHASE_MISSING")
        s.workbench.retry(number)
        assert s.now(number).result is None
        await s.ends(number)
        result = s.now(number).result
        assert result is not None
        assert (s.status(number), result["voltage"], set(result["phase"])) == (S.SUCCESSFUL, "230.0", {"A", "B", "C"})
        assert [task.request.phase for task in far.tasks(number)] == ["A", "B", "C"] * 2

    play(scene, meter("v1", phases="3"), far=far)


def test_48_hours_of_pending_polls_are_the_end_without_another_try() -> None:
    far = FarSide()
    far.on("READ_CREDIT", SILENT)

    async def scene(s: Stage) -> None:
        number = s.send("v1", "READ_CREDIT")
        await s.advance(1)
        await s.skip(48 * HOUR - 60)
        assert s.status(number) is S.PROCESSING
        await s.advance(61)
        assert (s.status(number), s.now(number).attempts) == (S.FAILED, 1)
        assert [(f.code, f.is_final) for f in s.failures(number)] == [("PULL_MAX_AGE", True)]

    play(scene, meter("v1"), far=far)


def test_g6_waiting_reads_expire() -> None:
    async def scene(s: Stage) -> None:
        mine = s.send("v1", "READ_CREDIT")
        s.workbench.run_batch(["v2"], "READ_CREDIT")
        batch = s.rows("v2")[0].id
        await s.skip(30 * 60 - 1)
        assert s.status(batch) is S.SUSPENDED
        await s.advance(6)
        assert (s.status(batch), s.code(batch)) == (S.ABORTED, "EXPIRED")
        assert [b.failed for b in s.workbench.batches()] == [1]
        assert s.status(mine) is S.SUSPENDED
        await s.skip(24 * HOUR)
        assert (s.status(mine), s.code(mine)) == (S.ABORTED, "EXPIRED")

    play(scene, meter("v1"), meter("v2"), facts={"grid": {"is_hps_on": False}})


def test_d07_an_outage_that_no_refresh_saw_is_swept_up() -> None:
    async def scene(s: Stage) -> None:
        await s.advance(10)
        s.far.set_gateway("d1", is_up=False)
        await s.advance(1)
        number = s.send("v1", "TURN_ON")
        assert s.code(number) == "GATEWAY_DOWN"
        s.far.set_gateway("d1", is_up=True)
        await s.advance(880)
        assert s.status(number) is S.SUSPENDED
        await s.advance(20)
        assert s.status(number) is S.PROCESSING

    play(scene, meter("v1"))


def test_g3_a_late_success_of_an_older_limit_does_not_undo_the_newer_one() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", *[SILENT] * 12, Reply())

    async def scene(s: Stage) -> None:
        old = s.send("m1", "SET_POWER_LIMIT", target_power_limit=500)
        await s.ends(old)
        await s.until(lambda: bool(s.workbench.issues("m1")))
        new = s.send("m1", "SET_POWER_LIMIT", target_power_limit=300)
        await s.ends(new)
        assert [s.status(n) for n in (old, new)] == [S.FAILED, S.SUCCESSFUL]
        late = far.tasks(old)[-1]
        far.tell("m1", LateOrPushed(late.ref, Answer(result={"token_accepted": True})))
        await s.advance(60)
        assert s.status(old) is S.SUCCESSFUL  # T20
        assert (s.facts("m1")["power_limit"], s.facts("m1")["power_limit_should_be"]) == (300, 300)

    play(scene, meter("m1", RADIO), far=far)


def test_d24_a_late_answer_completes_and_the_newer_try_is_only_noted() -> None:
    far = FarSide()
    far.on("TOP_UP", SILENT)

    async def scene(s: Stage) -> None:
        number = s.send("m1", "TOP_UP", transactive_kwh=1)
        await s.until(lambda: s.now(number).attempts == 2)
        await s.advance(1)
        first, second = far.tasks(number)
        assert first.token == second.token
        far.tell("m1", LateOrPushed(first.ref, Answer(result={"token_accepted": True})))
        await s.advance(1)
        assert s.status(number) is S.SUCCESSFUL
        used = Answer(execution=Execution.FAILURE, code="TOKEN_NOT_ACCEPTED", text="It was used.")
        far.tell("m1", LateOrPushed(second.ref, used))
        await s.advance(HOUR)
        assert s.told(number) == [S.QUEUED, S.PROCESSING, S.SUCCESSFUL]
        assert (s.now(number).failure, len(far.tasks(number))) == (None, 2)
        assert far.commands() == ["TOP_UP", "TOP_UP", "READ_CREDIT"]

    play(scene, meter("m1", RADIO), far=far)


def test_g9_an_automatic_write_that_ran_out_of_tries_is_tried_once_more_after_a_while() -> None:
    far = FarSide()
    far.on("SET_POWER_LIMIT", *[refusing("TASK_NOT_SCHEDULED", Disposition.RETRY)] * 12, Reply())

    async def scene(s: Stage) -> None:
        s.workbench.run_batch(["v1"], "SET_POWER_LIMIT", {"target_power_limit": 500})
        row = s.rows("v1")[0].id
        await s.ends(row)
        assert (s.status(row), s.now(row).attempts) == (S.FAILED, 12)
        await s.until(lambda: any(line.code == "RETRY_LATER" for line in s.history(row)))
        assert [other.command for other in s.rows("v1")] == ["SET_POWER_LIMIT", "READ_POWER_LIMIT"]
        await s.advance(15 * 60 - 1)
        assert s.status(row) is S.FAILED
        await s.until(lambda: s.status(row) is S.SUCCESSFUL)
        await s.advance(10)
        assert {task.token for task in far.tasks(row)} == {s.now(row).token}
        assert [(b.successful, b.failed) for b in s.workbench.batches()] == [(1, 0)]
        assert s.workbench.issues("v1") == ()

    play(scene, meter("v1"), far=far)


def test_an_order_whose_top_up_is_retried_tells_its_owner_again() -> None:
    far = FarSide()
    far.on("TOP_UP", REFUSED, Reply())

    async def scene(s: Stage) -> None:
        s.workbench.add_orders([NewOrder(reference="o1", device="v1", kwh=Decimal(5))])
        row = s.rows("v1")[0].id
        await s.ends(row)
        assert s.order("o1").delivery is DeliveryStatus.NOT_DELIVERED_TOKEN_AVAILABLE
        s.workbench.retry(row)
        await s.advance()
        assert s.order("o1").delivery in (DeliveryStatus.WAITING, DeliveryStatus.SENDING)
        await s.ends(row)
        order = s.order("o1")
        assert order.delivery is DeliveryStatus.DELIVERED
        assert [word.status.value for word in order.notifications] == [
            "WAITING", "NOT_DELIVERED_TOKEN_AVAILABLE", "DELIVERED",
        ]  # fmt: skip
        assert len(far.minted(row)) == 1

    play(scene, meter("v1"), far=far)


def test_g5_a_read_goes_its_own_way_when_the_one_it_joined_is_cancelled() -> None:
    async def scene(s: Stage) -> None:
        s.send("m2", "READ_POWER")  # starts the spacing of the lane
        first, second, third = (s.send("m1", "READ_CREDIT") for _ in range(3))
        assert s.workbench.cancel(first) is CancelResult.CANCELLED
        await s.ends(second, third)
        assert [s.status(n) for n in (first, second, third)] == [S.ABORTED, S.SUCCESSFUL, S.SUCCESSFUL]
        assert [task.number for task in s.far.sent if task.device == "m1"] == [second]

    play(scene, meter("m1", RADIO), meter("m2", RADIO))


def test_g5_a_shared_read_after_a_restart() -> None:
    far = FarSide()
    far.on("READ_CREDIT", SILENT)

    async def scene(s: Stage) -> None:
        first = s.send("v1", "READ_CREDIT")
        second = s.send("v1", "READ_CREDIT")
        await s.advance(5)
        await s.restart()
        far.finish(first)
        await s.ends(first, second)
        assert [s.status(n) for n in (first, second)] == [S.SUCCESSFUL] * 2
        assert len(far.sent) == 1

    play(scene, meter("v1"), far=far)


# ---------------------------------------------------------------- restart


def test_a_restart_in_the_middle_of_everything() -> None:
    far = FarSide()
    far.on("CLEAR_CREDIT", SILENT, device="v1")
    far.on("TOP_UP", SILENT)
    far.on("READ_CREDIT", SILENT, device="v4")

    async def scene(s: Stage) -> None:
        number = s.workbench.commission("v1")
        steps = [row.id for row in s.steps("v1")]
        s.workbench.add_orders([NewOrder(reference="o1", device="v2", kwh=Decimal(5))])
        top_up = s.rows("v2")[0].id
        batch = s.workbench.run_batch(["v3", "v4"], "READ_CREDIT")
        done, open_read = s.rows("v3")[0].id, s.rows("v4")[0].id
        await s.ends(done)
        await s.until(lambda: s.status(steps[1]) is S.PROCESSING)
        foreign = s.send("v1", "TURN_ON")
        await s.advance(5)
        await s.restart()
        await s.advance(30)
        assert s.commissioning("v1").id == number
        assert s.commissioning("v1").status is FlowStatus.PROCESSING
        assert (s.status(steps[1]), s.status(foreign)) == (S.PROCESSING, S.DEFERRED)
        assert s.order("o1").delivery is DeliveryStatus.SENDING
        assert [(b.id, b.total, b.successful, b.completed_at) for b in s.workbench.batches()] == [(batch, 2, 1, None)]
        for row in (steps[1], top_up, open_read):
            far.finish(row)
        await s.until(lambda: s.commissioning("v1").status is FlowStatus.SUCCESSFUL)
        await s.ends(top_up, open_read, foreign)
        await s.advance(60)
        assert far.commands("v1") == [*FIVE_STEPS, "TURN_ON"]
        assert [len(far.minted(row)) for row in (*steps, top_up)] == [1, 1, 1, 0, 0, 1]
        notified = [word.status for word in s.order("o1").notifications]
        assert notified == [DeliveryStatus.WAITING, DeliveryStatus.DELIVERED]
        assert [(b.successful, b.completed_at is None) for b in s.workbench.batches()] == [(2, False)]
        assert len([row for row in s.rows("v2") if row.command == "TOP_UP"]) == 1

    play(scene, *(meter(f"v{n}") for n in (1, 2, 3, 4)), far=far)


def at_every_write(adapter: str, begin: Callable[[Stage], object], after: Callable[[Stage], Awaitable[None]]) -> None:
    """Begin, die at the n-th write, start again and see what became of it; for every n."""
    kills, written = 1, 1_000
    while kills < written:

        async def scene(s: Stage, kills: int = kills) -> None:
            nonlocal written
            begin(s)
            await s.advance()
            s.store.calls, s.store.kill_after = 0, kills
            await s.advance(120)
            if not s.store.dead:
                written = min(written, s.store.calls)
            s.store.kill_after, s.store.dead = None, False
            await s.restart()
            await after(s)

        play(scene, meter("m1", adapter))
        kills += 1
    assert kills > 8


def test_killed_at_any_write_a_commissioning_still_comes_to_its_end() -> None:
    async def after(s: Stage) -> None:
        s.far.report("m1")  # where it waits for a contact
        await s.until(lambda: s.commissioning("m1").status is FlowStatus.SUCCESSFUL)
        rows = s.rows("m1", Origin.COMMISSIONING)
        assert {row.status for row in rows} == {S.SUCCESSFUL}
        assert list(dict.fromkeys(s.far.commands())) == FIVE_STEPS
        for row in rows:
            assert {task.token for task in s.far.tasks(row.id)} == {row.token}, "sent again with another token"

    at_every_write(RADIO, lambda s: s.workbench.commission("m1"), after)


def test_killed_at_any_write_no_token_is_bought_twice_and_the_commissioning_ends() -> None:
    async def after(s: Stage) -> None:
        ended = (FlowStatus.SUCCESSFUL, FlowStatus.FAILED)
        await s.until(lambda: s.commissioning("m1").status in ended)
        await s.advance(120)
        rows = s.rows("m1", Origin.COMMISSIONING)
        assert all(row.is_settled for row in rows)
        assert all(len(s.far.minted(row.id)) <= 1 for row in rows)
        if s.commissioning("m1").status is FlowStatus.FAILED:
            assert "TOKEN_FAILED" in {s.code(row.id) for row in rows}

    at_every_write(V1, lambda s: s.workbench.commission("m1"), after)


def test_killed_at_any_write_an_order_ends_and_its_owner_is_told_once() -> None:
    def begin(s: Stage) -> None:
        s.workbench.add_orders([NewOrder(reference="o1", device="m1", kwh=Decimal(5))])

    async def after(s: Stage) -> None:
        await s.advance(HOUR)
        order = [change for change in s.store.of(Order) if change.reference == "o1"][-1]
        words = [word.status for word in order.notifications]
        assert len(words) == len(set(words))
        (row,) = s.rows("m1", Origin.ORDER)
        assert len(s.far.minted(row.id)) <= 1
        if s.far.minted(row.id) and row.token:
            assert order.delivery is DeliveryStatus.DELIVERED
            assert words == [DeliveryStatus.WAITING, DeliveryStatus.DELIVERED]
            assert len(s.rows("m1", Origin.FOLLOW_UP)) == 1
        else:
            assert (order.delivery, words) == (DeliveryStatus.NOT_DELIVERED, [DeliveryStatus.NOT_DELIVERED])

    at_every_write(V1, begin, after)
