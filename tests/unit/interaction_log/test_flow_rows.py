"""Flow records in the workspace: equal when read back, replaced by newer versions, and found again after a restart."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import StoreError
from app.interaction_log.flow_rows import FLOW_COLUMNS, flow_of, flow_row
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.flow import (
    Batch,
    BatchRule,
    Commissioning,
    CommissioningStep,
    DeliveryStatus,
    FlowCheck,
    FlowRecord,
    FlowRun,
    FlowStatus,
    FlowStepRun,
    FsCommand,
    Issue,
    IssueKind,
    IssueStatus,
    Notification,
    Order,
    RunStatus,
    StepStatus,
)
from app.model.records import DeviceRemoved
from app.model.status import Event, Status
from tests.pipeline.harness import MemoryStore
from tests.unit.interaction_log import logs
from tests.unit.interaction_log.logs import START, queued

MOMENTS = st.datetimes(timezones=st.just(UTC))
OPT_MOMENTS = st.none() | MOMENTS
NUMBERS = st.integers(1, (1 << 63) - 1)
OPT_NUMBERS = st.none() | NUMBERS
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 10**9)
PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
PARAMS = st.dictionaries(st.text(), st.recursive(PLAIN, st.lists, max_leaves=5), max_size=4)
STEPS = st.builds(
    CommissioningStep, command=st.text(), interaction=NUMBERS, status=st.sampled_from(Status), warning=st.text()
)
NOTES = st.builds(Notification, at=MOMENTS, status=st.sampled_from(DeliveryStatus), shows_token=st.booleans())
TEXTS = st.lists(st.text(), max_size=3).map(tuple)
CHECKS = st.builds(
    FlowCheck, what=st.text(), found=st.text(), wanted=st.text(), is_met=st.booleans(), unit=st.text()
)
STEP_RUNS = st.builds(
    FlowStepRun, name=st.text(), status=st.sampled_from(StepStatus), text=st.text(), answer=st.text(), note=st.text(),
    interactions=st.lists(NUMBERS, max_size=3).map(tuple), checks=st.lists(CHECKS, max_size=2).map(tuple),
    attachments=TEXTS, by=st.text(), started=OPT_MOMENTS, ended=OPT_MOMENTS,
)  # fmt: skip
TIMES = {"id": NUMBERS, "created": MOMENTS, "updated": MOMENTS}
RECORDS: list[st.SearchStrategy[FlowRecord]] = [
    st.builds(
        Commissioning, **TIMES, device=st.text(), status=st.sampled_from(FlowStatus),
        registration=st.sampled_from(FlowStatus), steps=st.lists(STEPS, max_size=3).map(tuple), actor=st.text(),
        retry_of=OPT_NUMBERS, text=st.text(),
    ),
    st.builds(
        Order, **TIMES, reference=st.text(), device=st.text(), kwh=DECIMALS, amount=st.none() | DECIMALS,
        tariff=st.none() | DECIMALS, customer=st.text(), interaction=OPT_NUMBERS,
        delivery=st.sampled_from(DeliveryStatus), notifications=st.lists(NOTES, max_size=3).map(tuple), text=st.text(),
    ),
    st.builds(
        BatchRule, **TIMES, grid=st.text(), hour=st.integers(0, 23), minute=st.integers(0, 59), name=st.text(),
        command=st.text(), params=PARAMS, fs_command=st.sampled_from(FsCommand), is_repeating=st.booleans(),
        is_deleted=st.booleans(), last_run=OPT_MOMENTS,
    ),
    st.builds(
        Batch, **TIMES, name=st.text(), grid=st.text(), rule=OPT_NUMBERS, command=st.text(),
        fs_command=st.sampled_from(FsCommand), total=COUNTS, pending=COUNTS, processing=COUNTS, successful=COUNTS,
        failed=COUNTS, superseded=COUNTS, qualified_at=OPT_MOMENTS,
        completed_at=OPT_MOMENTS, flow=st.text(), retry_of=OPT_NUMBERS, is_stopped=st.booleans(),
    ),
    st.builds(
        Issue, id=NUMBERS, device=st.text(), kind=st.sampled_from(IssueKind), opened=MOMENTS, updated=MOMENTS,
        status=st.sampled_from(IssueStatus), closed_at=OPT_MOMENTS, interaction=OPT_NUMBERS, text=st.text(),
    ),
    st.builds(
        FlowRun, **TIMES, device=st.text(), flow=st.text(), status=st.sampled_from(RunStatus), definition=PARAMS,
        inputs=PARAMS, header=st.dictionaries(st.text(), st.text(), max_size=3), actor=st.text(),
        steps=st.lists(STEP_RUNS, max_size=3).map(tuple), attended=st.booleans(), batch=OPT_NUMBERS,
        retry_of=OPT_NUMBERS, ended=OPT_MOMENTS, text=st.text(),
    ),
]  # fmt: skip


@pytest.mark.parametrize("records", RECORDS, ids=["commissioning", "order", "rule", "batch", "issue", "flow"])
def test_a_record_comes_back_equal(records: st.SearchStrategy[FlowRecord]) -> None:
    @given(records)
    def check(record: FlowRecord) -> None:
        row = dict(zip(FLOW_COLUMNS.split(", "), flow_row(record), strict=True))
        back = flow_of((row["kind"], row["id"], row["body"]))
        assert back == record
        assert flow_row(back) == flow_row(record)  # 1.0 and 1.00 are equal, and not the same
        assert type(back) is type(record)

    check()


@pytest.mark.parametrize(
    "change",
    [
        {"kwh": 12.5}, {"kwh": "much"}, {"delivery": "LOST"}, {"created": 7}, {"device": None}, {"interaction": "3"},
        {"interaction": True}, {"notifications": [{"at": 1}]}, {"notifications": 3}, {"surprise": 1}, {"id": 9},
    ],
)  # fmt: skip
def test_what_is_not_a_record_is_an_error_in_words(change: dict[str, object]) -> None:
    order = next(record for record in logs.flows() if isinstance(record, Order))
    body = {**json.loads(flow_row(order)[-1]), **change}
    with pytest.raises(StoreError, match="The workspace holds the order"):
        flow_of(("order", order.id, json.dumps(body)))
    with pytest.raises(StoreError, match="in an unknown form"):
        flow_of(("order", order.id, "[]"))


def test_the_snapshot_brings_back_what_is_open(reader: LogReader) -> None:
    snapshot = reader.snapshot()
    records = {record.id: record for record in logs.flows()}
    # Not 1, followed by 7 of the same meter; 5, 8 and 10 are over. 9 and 11 are the newest of their meters.
    assert snapshot.flows == tuple(records[number] for number in (2, 3, 4, 6, 7, 9, 11))
    newest = {i.device: i for i in sorted(reader.page(limit=400), key=lambda i: i.id) if i.batch == 3}
    assert snapshot.batch_members == {3: {i.id: i.status for i in newest.values()}}
    kept = reader.batch(3)
    assert kept is not None
    assert (kept.batch, [row.id for row in kept.rows], kept.runs) == (
        records[3], sorted(i.id for i in newest.values()), ()
    )  # fmt: skip
    assert snapshot.last_flow == 11


def test_the_memory_store_keeps_the_same(tmp_path: Path) -> None:
    path, memory = tmp_path / "a.mwk", MemoryStore()
    with LogWriter(path) as writer:
        for changes in logs.calls(120, seed=3):
            kept = [change for change in changes if not isinstance(change, DeviceRemoved)]
            writer.put(*kept)
            memory.durable += kept
    mine = memory.snapshot()
    with LogReader(path) as reader:
        found = reader.snapshot()
    assert mine.flows == found.flows
    assert mine.batch_members == found.batch_members
    assert (mine.last_flow, mine.last_interaction) == (found.last_flow, found.last_interaction)
    assert {i.id: i for i in mine.interactions} == {i.id: i for i in found.interactions}
    assert {m.id: m for m in mine.messages} == {m.id: m for m in found.messages}
    assert mine.states == found.states


def test_a_newer_version_takes_the_place_of_the_older(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    rule = BatchRule(id=1, grid="site", hour=6, minute=0, command="READ_LIVE", created=START, updated=START)
    later = START + timedelta(hours=1)
    with LogWriter(path) as writer, LogReader(path) as reader:
        batch = Batch(id=2, name="A", created=START, updated=START, rule=1, total=1, pending=1)

        async def commit() -> None:
            await writer.commit(rule, batch, queued(1, batch=2))

        asyncio.run(commit())
        assert reader.snapshot().flows == (rule, batch)
        assert reader.snapshot().batch_members == {2: {1: Status.QUEUED}}
        done = replace(batch, pending=0, failed=1, updated=later, completed_at=later)
        writer.put(replace(batch, pending=0, processing=1), queued(1, batch=2).after(Event.ABORT, later), done)
        writer.put(replace(rule, last_run=START), replace(rule, is_deleted=True))
        writer.flush()
        assert reader.flows(Batch) == (done,)
        assert reader.flows(BatchRule) == (replace(rule, is_deleted=True),)
        assert reader.snapshot().flows == ()
        assert reader.snapshot().batch_members == {}
        assert reader.snapshot().last_flow == 2


def test_a_call_that_fails_takes_its_flow_records_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    record = logs.flows()[0]
    with LogWriter(path) as writer:
        writer.put(queued(1))
        writer.flush()
        writer.put(record, queued(1))
        with pytest.raises(StoreError, match="stored"):
            writer.flush()
    with LogReader(path) as reader:
        assert reader.flows(type(record)) == ()


def test_views_get_the_newest_first(reader: LogReader) -> None:
    assert [one.id for one in reader.flows(Commissioning)] == [11, 9, 7, 1]
    assert [one.id for one in reader.flows(Commissioning, device="calin-1")] == [7, 1]
    assert [one.id for one in reader.flows(Commissioning, device="calin-1", limit=1)] == [7]
    assert [one.id for one in reader.flows(Order, limit=None)] == [5, 4]
    assert [one.id for one in reader.flows(Batch)] == [8, 3]
    assert reader.flows(Issue, device="nobody") == ()
    (issue,) = reader.flows(Issue)
    assert issue.kind is IssueKind.NO_COMMUNICATION


def test_a_token_is_read_by_asking_for_it_and_no_other_way(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    token = "12345678901234567890"
    with LogWriter(path) as writer:
        item = queued(1, token=token)
        sent = item.after(Event.SEND, START)
        order = Order(
            id=1, reference="A", device="lem-1", kwh=Decimal(5), created=START, updated=START, interaction=1
        )
        writer.put(item, sent, sent.after(Event.SUCCEED, START), order, queued(2))
        writer.put(queued(3, token="[redacted]"))  # as an import brings it
    with LogReader(path) as reader:
        assert reader.token_of(1) == token
        assert [reader.token_of(number) for number in (2, 3, 4)] == ["", "", ""]
        shown = reader.interaction(1)
        assert shown is not None
        assert shown.token == "[redacted]"
        assert reader.story(1).interaction.token == "[redacted]"  # type: ignore[union-attr]
        (settled,) = [i for i in reader.snapshot().interactions if i.is_settled]
        assert settled.token == token  # the engine delivers it
