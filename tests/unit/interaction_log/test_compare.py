"""Two sessions, two devices, two readings: what differs, and nothing else."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import ParameterError
from app.interaction_log.compare import (
    CSV_COLUMNS,
    Tolerance,
    compare_interactions,
    compare_logs,
    write_csv,
    write_html,
)
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.interaction import Failure, Interaction
from app.model.status import Event
from tests.unit.interaction_log import logs


def _done(number: int, result: dict[str, Any], seconds: float = 0.5, **more: Any) -> Interaction:
    item = logs.queued(number, **more)
    item = item.after(Event.SEND, item.created, attempts=1)
    return item.after(Event.SUCCEED, item.created + timedelta(seconds=seconds), result=result)


def _log(path: Path, items: Sequence[Interaction]) -> LogReader:
    with LogWriter(path) as writer:
        for item in items:
            writer.put(replace(item, seq=1))
        writer.flush()
    return LogReader(path)


def _readout(**values: str) -> dict[str, Any]:
    return {"rows": [{"obis": name.replace("_", "."), "value": value, "unit": "kWh"} for name, value in values.items()]}


def test_a_log_equals_itself(reader: LogReader) -> None:
    assert list(compare_logs(reader, reader)) == []


def test_sessions_are_aligned_by_command_whatever_came_between(tmp_path: Path) -> None:
    same = [_done(n, {"v": n}, params={"register": str(n)}) for n in range(1, 6)]
    moved = [replace(item, id=item.id + 1) for item in same[1:]]  # one is missing in the middle of the other log
    extra = _done(1, {}, command="READ_METER")
    with _log(tmp_path / "a.mwk", same) as one, _log(tmp_path / "b.mwk", [extra, *moved]) as other:
        found = list(compare_logs(one, other))
    assert [(d.what, d.command, d.one, d.other) for d in found] == [
        ("presence", "READ_LIVE", 1, None),
        ("presence", "READ_METER", None, 1),
    ]
    assert str(found[0]) == "READ_LIVE number 1 on lem-1 (#1 and none): only in the first."


def test_left_over_ones_are_paired_and_their_parameters_told(tmp_path: Path) -> None:
    a, b = _done(1, {}, params={"amount": "5"}), _done(4, {}, params={"amount": "6"})
    with _log(tmp_path / "a.mwk", [a]) as one, _log(tmp_path / "b.mwk", [b]) as other:
        (found,) = compare_logs(one, other)
    assert (found.what, found.place, found.here, found.there) == ("params", "amount", "5", "6")


def test_two_devices_of_one_log(tmp_path: Path) -> None:
    items = [_done(1, {"v": 1}, device="a"), _done(2, {"v": 2}, device="b"), _done(3, {"v": 3}, device="c")]
    with _log(tmp_path / "a.mwk", items) as log:
        (found,) = compare_logs(log, log, devices=("a", "b"))
        assert (found.device, found.other_device, found.one, found.other) == ("a", "b", 1, 2)
        assert str(found) == "READ_LIVE number 1 on a and b (#1 and #2): result v: 1 and 2."
        with pytest.raises(ParameterError, match="no interaction of nobody"):
            list(compare_logs(log, log, devices=("a", "nobody")))


def test_readouts_by_obis_code_and_profiles_by_time() -> None:
    one = _done(1, _readout(**{"1_8_0": "5", "2_8_0": "1", "0_9_1": "x"}))
    other = _done(2, _readout(**{"0_9_1": "x", "1_8_0": "6", "3_8_0": "2"}))
    found = compare_interactions(one, other)
    assert [(d.place, d.here, d.there) for d in found] == [
        ("rows[1.8.0].value", "5", "6"),
        ("rows[2.8.0]", {"obis": "2.8.0", "value": "1", "unit": "kWh"}, None),
        ("rows[3.8.0]", None, {"obis": "3.8.0", "value": "2", "unit": "kWh"}),
    ]
    early = {"rows": [{"time": f"2026-05-0{n}", "values": [str(n), None]} for n in (1, 2)]}
    late = {"rows": [{"time": f"2026-05-0{n}", "values": [str(n), "7"]} for n in (2, 3)]}
    found = compare_interactions(_done(1, early), _done(1, late))
    assert [d.place for d in found] == ["rows[2026-05-01]", "rows[2026-05-02].values[1]", "rows[2026-05-03]"]


def test_rows_of_the_same_code_are_told_apart() -> None:
    one = {"rows": [{"obis": "F.F", "value": "0"}, {"obis": "F.F", "value": "1"}]}
    other = {"rows": [{"obis": "F.F", "value": "0"}, {"obis": "F.F", "value": "2"}]}
    assert [d.place for d in compare_interactions(_done(1, one), _done(1, other))] == ["rows[F.F#2].value"]


def test_status_reason_attempts_and_duration() -> None:
    one, item = _done(1, {}), logs.queued(1)
    item = item.after(Event.SEND, item.created, attempts=3)
    failure = Failure(code="TIMEOUT", text="No answer.", at=item.created)
    other = item.after(Event.FAIL, item.created + timedelta(seconds=9), failure=failure)
    found = {d.what: (d.here, d.there) for d in compare_interactions(one, other)}
    assert found == {
        "status": ("SUCCESSFUL", "FAILED"), "reason": (None, "TIMEOUT"), "attempts": (1, 3), "duration": (0.5, 9.0),
    }  # fmt: skip
    wide = compare_interactions(one, other, tolerance=Tolerance(seconds=10))
    assert "duration" not in {d.what for d in wide}


def test_a_flood_of_differences_is_cut() -> None:
    found = compare_interactions(_done(1, {str(n): n for n in range(3000)}), _done(1, {}))
    assert len(found) == 1001


def test_exports_are_escaped() -> None:
    found = compare_interactions(_done(1, {"a": "=1+1"}), _done(1, {"a": "<script>x"}))
    table, page = io.StringIO(), io.StringIO()
    assert write_csv(table, found) == write_html(page, found, "a&b", "c") == 1
    header, row = csv.reader(io.StringIO(table.getvalue()))
    assert tuple(header) == CSV_COLUMNS
    assert row[-2:] == ["'=1+1", "<script>x"]
    assert "<script" not in page.getvalue()
    assert "a&amp;b" in page.getvalue()
