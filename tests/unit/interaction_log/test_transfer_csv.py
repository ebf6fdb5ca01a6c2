"""CSV out and in again: rows equal, histories explained, wrong files named."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.errors import StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.transfer import INTERACTION_CSV, export_csv, export_samples_csv
from app.interaction_log.transfer_csv import import_csv
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.interaction import Failure, Interaction, Origin, Step, StepEntry
from app.model.reading import Quantity, SampleSet
from app.model.status import Event, Status

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ENDS = (Status.SUCCESSFUL, Status.FAILED, Status.ABORTED, Status.SUPERSEDED, Status.OUTCOME_UNKNOWN)
ROADS = {
    Status.SUCCESSFUL: (Event.ADMIT, Event.SEND, Event.SUCCEED),
    Status.FAILED: (Event.ADMIT, Event.SEND, Event.FAIL),
    Status.ABORTED: (Event.ABORT,),
    Status.SUPERSEDED: (Event.ADMIT, Event.SUPERSEDE),
    Status.OUTCOME_UNKNOWN: (Event.ADMIT, Event.SEND, Event.LOSE_SIGHT),
    Status.SUSPENDED: (Event.SUSPEND,),
    Status.PROCESSING: (Event.ADMIT, Event.SEND),
}


def write(path: Path) -> None:
    with contextlib.closing(LogWriter(path)) as writer:
        for number, (status, road) in enumerate(ROADS.items(), 1):
            item = Interaction(
                id=number, device="=cmd()", adapter="a", command="C", kind=CommandKind.CONTROL, created=NOW,
                updated=NOW, params={"text": "ü, \"quoted\"\nline"}, result={"v": "1.50"} if number == 1 else None,
                origin=Origin.USER,
                failure=Failure(code="WHY", text="Because.", at=NOW) if status is Status.FAILED else None,
            )  # fmt: skip
            lines = []
            for event in road:
                item = item.after(event, NOW + timedelta(seconds=number))
                lines.append(
                    StepEntry(interaction=number, at=item.updated, step=Step.UPDATED, event=event, status=item.status)
                )
            writer.put(item, *lines)
        quantity = Quantity("power", "W")
        for second in range(5):
            at = NOW + timedelta(seconds=second)
            writer.put(SampleSet(device="m", received=at, values=((quantity, Decimal(second)),), meter_time=at))


def everything(path: Path) -> list[Interaction]:
    with contextlib.closing(LogReader(path)) as reader:
        return list(reader.page(after=0, limit=100))


def test_interactions_come_back(tmp_path: Path) -> None:
    source, table, target = tmp_path / "a.mwk", tmp_path / "a.csv", tmp_path / "b.mwk"
    write(source)
    with contextlib.closing(LogReader(source)) as reader:
        assert export_csv(reader, table) == len(ROADS)
    with contextlib.closing(LogWriter(target)) as writer:
        assert import_csv(table, writer) == len(ROADS)
        assert import_csv(table, writer) == len(ROADS)  # once more, behind the first
    was, now = everything(source), everything(target)
    assert [i.id for i in now] == list(range(1, 2 * len(ROADS) + 1))
    for before, after in zip(was, now, strict=False):
        assert (before.device, before.params, before.result) == (after.device, after.params, after.result)
        if before.status in ENDS:
            assert (before.status, before.created, before.finished) == (after.status, after.created, after.finished)
    assert now[5].status is Status.ABORTED  # it was suspended: nothing foreign is sent from here
    assert now[6].status is Status.OUTCOME_UNKNOWN
    assert verify(target) == []


def test_samples_come_back(tmp_path: Path) -> None:
    source, table, target = tmp_path / "a.mwk", tmp_path / "a.csv", tmp_path / "b.mwk"
    write(source)
    with contextlib.closing(LogReader(source)) as reader:
        export_samples_csv(reader, table)
    with contextlib.closing(LogWriter(target)) as writer:
        assert import_csv(table, writer) == 5
    with contextlib.closing(LogReader(source)) as one, contextlib.closing(LogReader(target)) as other:
        for mine, theirs in zip(one.samples("m", "power", None, None, 10), other.samples("m", "power", None, None, 10),
                                strict=True):  # fmt: skip
            assert mine.tolist() == theirs.tolist()


HEAD = ",".join(INTERACTION_CSV) + "\n"
GOOD = "1,2026-05-01T00:00:00Z,,d,a,C,read,USER,SUCCESSFUL,,,1,,{},,,,,\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header"),
        ("a,b\n", "header"),
        (HEAD + "1,2\n", "line 2: 2 cells"),
        (HEAD + GOOD.replace("2026-05-01T00:00:00Z", "yesterday"), "line 2"),
        (HEAD + GOOD.replace("00Z", "00"), "no time zone"),
        (HEAD + GOOD.replace("SUCCESSFUL", "GREAT"), "line 2"),
        (HEAD + GOOD.replace("SUCCESSFUL", "NEW"), "cannot be stored"),
        (HEAD + GOOD.replace("{}", "[]"), "not a JSON object"),
        (HEAD + GOOD.replace("{}", '"{"'), "line 2"),
        (HEAD + GOOD.replace("1,2026", "x,2026", 1), "not a whole number"),
        (HEAD + GOOD + GOOD.replace("read", "dance"), "line 3"),
        (HEAD + '"open\n', "not CSV"),
        ("time,device,quantity,unit,value,meter_time\n2026-05-01T00:00:00Z,m,p,W,NaN,\n", "finite"),
    ],
)
def test_wrong_files_are_named_and_nothing_is_written(tmp_path: Path, text: str, said: str) -> None:
    table, target = tmp_path / "a.csv", tmp_path / "b.mwk"
    table.write_text(text, encoding="utf-8")
    with contextlib.closing(LogWriter(target)) as writer, pytest.raises(StoreError, match=said) as caught:
        import_csv(table, writer)
    assert "a.csv" in str(caught.value)
    assert everything(target) == []


async def test_an_import_can_run_beside_a_loop(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(HEAD + GOOD, encoding="utf-8")
    with contextlib.closing(LogWriter(tmp_path / "b.mwk")) as writer:
        assert await asyncio.to_thread(import_csv, table, writer) == 1
