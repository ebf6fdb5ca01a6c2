"""Out of one workspace and into another."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreError
from app.interaction_log import transfer
from app.interaction_log.filters import parse
from app.interaction_log.reader import LogReader
from app.interaction_log.transfer_csv import import_csv
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.flow import Batch
from app.model.interaction import Interaction
from app.model.reading import LinkState, SampleSet
from app.model.status import Event, Status
from tests.unit.interaction_log.logs import START, VOLTAGE, fresh, line, queued


def imported(file: Path, path: Path, **options: Any) -> int:
    with LogWriter(path) as writer:
        return transfer.import_jsonl(file, writer, **options)


def test_round_trip_is_equal(reader: LogReader, tmp_path: Path) -> None:
    file, path = tmp_path / "a.jsonl", tmp_path / "b.mwk"
    assert transfer.export_jsonl(reader, file, samples=True) == 400
    assert imported(file, path, close_unfinished=False) == 400
    with LogReader(path) as other:
        for number in range(1, 401):
            one, two = reader.story(number), other.story(number)
            assert one == two
        assert other.snapshot().devices == reader.snapshot().devices
        states = tuple(replace(s, link=LinkState.OFF, link_text="") for s in reader.snapshot().states)
        assert other.snapshot().states == states
        assert other.series() == reader.series()
        for device, quantity in reader.series():
            mine = reader.samples_with_meter_time(device, quantity.name, quantity.unit, None, 10_000)
            assert other.samples_with_meter_time(device, quantity.name, quantity.unit, None, 10_000) == mine
        assert sorted(map(repr, other.findings())) == sorted(map(repr, reader.findings()))
        assert {repr(f) for _n, f in other.frames(limit=10_000)} == {repr(f) for _n, f in reader.frames(limit=10_000)}
        assert any(item.shared_with for item in other.page(limit=400))
        again = tmp_path / "c.jsonl"
        transfer.export_jsonl(other, again, samples=True)
    def lines(one: Path) -> list[str]:
        """Without what an import changes: the state of a link, and flow records."""
        kept = one.read_text().splitlines()[1:]
        return [text for text in kept if '"type":"state"' not in text and '"type":"flow"' not in text]

    assert lines(file) == lines(again)
    assert verify(path) == []


def test_commands_under_way_elsewhere_are_never_sent_from_here(reader: LogReader, tmp_path: Path) -> None:
    file, path = tmp_path / "a.jsonl", tmp_path / "b.mwk"
    transfer.export_jsonl(reader, file)
    imported(file, path)
    with LogReader(path) as other:
        snapshot = other.snapshot()
        assert all(i.is_settled for i in snapshot.interactions)
        assert snapshot.attempts == ()
        for item in reader.page(limit=400):
            there = other.interaction(item.id)
            assert there is not None
            if item.status in (Status.QUEUED, Status.SUSPENDED):
                assert there.status is Status.ABORTED
            elif item.status is Status.PROCESSING:
                assert there.status is Status.OUTCOME_UNKNOWN
            else:
                assert there == item
    assert verify(path) == []


def test_into_a_workspace_that_has_a_log_already(reader: LogReader, tmp_path: Path) -> None:
    file, path = tmp_path / "a.jsonl", tmp_path / "b.mwk"
    transfer.export_jsonl(reader, file, parse("id:11..20", START))
    with LogWriter(path) as writer:
        item = queued(100).after(Event.ABORT, START + timedelta(days=1))
        writer.put(item, line(queued(100), Event.ADMIT), line(item, Event.ABORT))
        assert transfer.import_jsonl(file, writer) == 10
        assert transfer.import_jsonl(file, writer) == 10
    assert verify(path) == []
    with LogReader(path) as other:
        ids = other.page(limit=400).ids
        assert len(ids) == 21
        assert ids[:11] == [100, *range(111, 121)]
        for item in reader.page(after=10, before=21):
            there = other.interaction(item.id + 100)
            assert there is not None
            if item.followup_of is not None:
                assert there.followup_of == item.followup_of + 100
            assert len(other.story(there.id).attempts) == len(reader.story(item.id).attempts)  # type: ignore[union-attr]


def test_flow_records_are_shown_and_stay_behind(
    reader: LogReader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, path = tmp_path / "a.jsonl", tmp_path / "b.mwk"
    transfer.export_jsonl(reader, file)
    records = [json.loads(text) for text in file.read_text().splitlines()]
    shown = {record["record"]["id"]: record for record in records if record["type"] == "flow"}
    assert sorted(shown) == list(range(1, 12))
    assert shown[4]["kind"] == "order"
    assert (shown[4]["record"]["kwh"], shown[4]["record"]["created"]) == ("12.50", "2026-05-04T08:00:00Z")
    assert shown[7]["record"]["steps"][0]["status"] == "SUCCESSFUL"
    imported(file, path)
    assert "11 commissionings, orders, rules, batches or issues were left out" in caplog.text
    with LogReader(path) as other:
        assert other.snapshot().flows == ()


def test_imported_batches_are_not_those_of_the_workspace(reader: LogReader, tmp_path: Path) -> None:
    file, table, path = tmp_path / "a.jsonl", tmp_path / "a.csv", tmp_path / "b.mwk"
    transfer.export_jsonl(reader, file)
    transfer.export_csv(reader, table)
    there = {item.id: item for item in reader.page(limit=400)}
    with LogWriter(path) as writer:
        writer.put(Batch(id=3, name="Ours", created=START, updated=START))
        transfer.import_jsonl(file, writer)
        import_csv(table, writer)
    with LogReader(path) as other:
        snapshot = other.snapshot()
        assert snapshot.batch_members == {3: {}}
        assert snapshot.last_flow == 3 + 7 + 7
        for item in other.page(limit=1000):
            was = there[(item.id - 1) % 400 + 1]
            by = 3 if item.id <= 400 else 10
            assert item.batch == (None if was.batch is None else was.batch + by)
            assert item.commissioning == (None if was.commissioning is None else was.commissioning + by)


def test_a_link_to_what_is_not_in_the_file_is_cut(reader: LogReader, tmp_path: Path) -> None:
    file, path = tmp_path / "a.jsonl", tmp_path / "b.mwk"
    rider = next(item for item in reader.page(limit=400) if item.shared_with)
    told: Mapping[str, int]
    for first, leader, told in (
        (1, rider.shared_with, {"serial": 2}),
        (rider.id - 1, rider.shared_with, {}),
        (rider.id, None, {}),
    ):
        transfer.export_jsonl(reader, file, parse(f"id:{first}..{rider.id}", START))
        path.unlink(missing_ok=True)
        imported(file, path)
        with LogReader(path) as other:
            copy = other.interaction(rider.id)
            assert copy is not None
            assert copy.shared_with == leader
            assert other.snapshot().states[0].facts_from == told
        assert verify(path) == []


def test_a_filter_chooses(reader: LogReader, tmp_path: Path) -> None:
    where = parse("status:FAILED command:read_*", START)
    count = reader.count(where)
    assert transfer.export_jsonl(reader, tmp_path / "a.jsonl", where) == count
    assert transfer.export_csv(reader, tmp_path / "a.csv", where) == count
    records = [json.loads(text) for text in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert records[0]["filter"] == "status:FAILED command:read_*"
    kinds = [record["type"] for record in records[1:]]
    assert kinds.count("interaction") == count
    assert set(kinds) == {"device", "state", "interaction"}
    times = [record["created"] for record in records if record["type"] == "interaction"]
    assert all(text.endswith("Z") and "T" in text for text in times)


def test_csv_of_interactions_and_samples(reader: LogReader, tmp_path: Path) -> None:
    transfer.export_csv(reader, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 400
    for row, item in zip(rows, reader.page(limit=400), strict=True):
        assert (row["id"], row["device"], row["status"]) == (str(item.id), item.device, item.status)
        assert json.loads(row["params"]) == item.params
        assert row["reason"] == (item.failure.code if item.failure else "")
    assert transfer.export_samples_csv(reader, tmp_path / "s.csv") == 800
    with (tmp_path / "s.csv").open(newline="") as file:
        samples = list(csv.DictReader(file))
    assert samples[-1] == {
        "time": "2026-05-04T08:06:40Z", "device": "lem-1", "quantity": "voltage", "unit": "V", "value": "798.1",
        "meter_time": "",
    }  # fmt: skip
    part = transfer.export_samples_csv(
        reader, tmp_path / "p.csv", devices=["lem-1"], since=START + timedelta(seconds=10),
        until=START + timedelta(seconds=20),
    )  # fmt: skip
    assert part == 20
    assert transfer.export_samples_csv(reader, tmp_path / "p.csv", devices=["nobody"]) == 0


def test_a_spreadsheet_runs_nothing(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "a.mwk") as writer:
        writer.put(queued(1, device="=HYPERLINK(1)", command="-5"))
    with LogReader(tmp_path / "a.mwk") as reader:
        transfer.export_csv(reader, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["device"] == "'=HYPERLINK(1)"
    assert row["command"] == "-5"


def test_no_token_leaves(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "a.mwk") as writer:
        writer.put(queued(1, token="12345678901234567890"))
    with LogReader(tmp_path / "a.mwk") as reader:
        transfer.export_jsonl(reader, tmp_path / "a.jsonl")
        transfer.export_csv(reader, tmp_path / "a.csv")
        assert reader.count(parse("12345678901234567890", START)) == 0
    assert b"12345678901234567890" not in (tmp_path / "a.jsonl").read_bytes() + (tmp_path / "a.csv").read_bytes()


def test_values_that_json_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        writer.put(SampleSet(device="d", received=START, values=((VOLTAGE, Decimal("Infinity")),)))
        writer.put(queued(1, params={"line": "a\u2028b\x85c", "n": 10**30, "f": 1e-7}))
    file, other = tmp_path / "a.jsonl", tmp_path / "b.mwk"
    with LogReader(path) as reader:
        transfer.export_jsonl(reader, file, samples=True)
        imported(file, other, close_unfinished=False)
        with LogReader(other) as copy:
            assert copy.samples("d", "voltage")[1].tolist() == [float("inf")]
            assert copy.interaction(1) == reader.interaction(1)


def test_an_export_that_fails_leaves_the_old_file(reader: LogReader, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("old")
    reader.close()
    with pytest.raises(StoreError):
        transfer.export_jsonl(reader, file)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.jsonl"]
    with pytest.raises(StoreError, match="cannot be used"):
        transfer.export_jsonl(reader, tmp_path / "no folder" / "a.jsonl")


GOOD = '{"type":"meterwright-log","format":1}'


def one_line(**more: Any) -> str:
    """One interaction as an export has it, with some fields changed; None takes a field out."""
    record: dict[str, Any] = {
        "type": "interaction", "id": 1, "device": "d", "adapter": "a", "command": "C", "kind": "read",
        "created": "2026-05-04T08:00:00Z", "updated": "2026-05-04T08:00:00Z", "status": "ABORTED", "seq": 1,
    }  # fmt: skip
    record.update(more)
    return json.dumps({name: value for name, value in record.items() if value is not None})


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "is empty"),
        (["nothing"], "line 1"),
        (['{"type":"else"}'], "first line must be"),
        (['{"type":"meterwright-log","format":9}'], "reads up to 1"),
        ([GOOD, "{"], "line 2"),
        ([GOOD, "[]"], "line 2.*JSON object"),
        ([GOOD, one_line(), one_line(id="7")], "line 3"),
        ([GOOD, one_line(id=0)], "not the number of an interaction"),
        ([GOOD, one_line(device=7)], "device may not be 7"),
        ([GOOD, one_line(device=None)], "line 2.*device"),
        ([GOOD, one_line(status="BROKEN")], "BROKEN"),
        ([GOOD, one_line(created="2026-05-04T08:00:00")], "has no zone"),
        ([GOOD, one_line(priority=1 << 80)], "not a usable number"),
        ([GOOD, one_line(surprise=1)], "surprise"),
        ([GOOD, one_line(params=[1])], "JSON object"),
        ([GOOD, one_line(steps=[{"at": "2026-05-04T08:00:00Z", "step": 99, "event": "X"}])], "99"),
        ([GOOD, one_line(frames=[{"at": "2026-05-04T08:00:00Z", "device": "d", "link": "l", "direction": "in",
                                  "data": "zz"}])], "line 2"),
        ([GOOD, '{"type":"samples","device":"d","name":"v","points":[[1]]}'], "line 2"),
        ([GOOD, '{"type":"samples","device":"d","name":"v","points":[["2026-05-04T08:00:00Z","x",null]]}'], "line 2"),
        ([GOOD, one_line(params={"a": 1}).replace('{"a": 1}', "[" * 100_000)], "line 2"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named_and_nothing_is_stored(tmp_path: Path, lines: list[str], said: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(lines))
    with LogWriter(tmp_path / "a.mwk") as writer:
        with pytest.raises(StoreError, match=said):
            transfer.import_jsonl(file, writer)
        assert writer.failure == ""
    with LogReader(tmp_path / "a.mwk") as reader:
        assert reader.span()[2] == 0


def test_a_small_line_is_enough_and_unknown_kinds_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([GOOD, "", one_line(), '{"type":"of the future"}']))
    assert imported(file, tmp_path / "a.mwk") == 1
    expected: Interaction = replace(
        fresh(1, device="d", adapter="a", command="C"), created=START, updated=START, status=Status.ABORTED, seq=1
    )
    with LogReader(tmp_path / "a.mwk") as reader:
        assert reader.page() == [expected]


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="none"):
        imported(tmp_path / "none.jsonl", tmp_path / "a.mwk")
