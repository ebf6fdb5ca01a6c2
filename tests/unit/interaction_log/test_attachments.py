"""Attachments and the gatekeeper's inputs in the workspace: kept once, read back equal, checked, recovered, shared."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import StoreError
from app.interaction_log import transfer
from app.interaction_log import writer as writer_module
from app.interaction_log.pseudonyms import Kind, Redaction
from app.interaction_log.reader import LogReader
from app.interaction_log.recover import recover
from app.interaction_log.share import share
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.flow import FlowRun, FlowStepRun
from app.model.interaction import Step
from app.model.records import Attachment
from app.model.status import Event
from tests.unit.interaction_log import logs
from tests.unit.interaction_log.logs import PHOTO, START, line, queued

NOTE = Attachment.of("note.txt", "text/plain", START, "Grüße \N{SNOWMAN}".encode())
INPUTS = {"v": 1, "by": ["from_user"], "gateway": "gone-gw-3", "grid": {"id": "gone-grid", "gw": [["gone-gw-4", 0, 1]]}}


def _kept(path: Path) -> Path:
    item = queued(1)
    verdict = replace(line(item, Event.ADMIT, inputs=INPUTS), step=Step.GATEKEEPER)
    with LogWriter(path) as writer:
        writer.put(item, verdict, PHOTO, NOTE)
        writer.put(replace(PHOTO, name="the same again.png"), replace(NOTE, at=PHOTO.at))
    return path


def test_the_same_bytes_are_kept_once(tmp_path: Path) -> None:
    with LogReader(_kept(tmp_path / "a.mwk")) as reader:
        assert reader.attachment(PHOTO.sha256) == PHOTO
        assert sorted(one.name for one in reader.attachments()) == ["note.txt", "plate.png"]
        assert reader.attachment("0" * 64) is None
    assert repr(PHOTO.data) not in repr(PHOTO)


def test_inputs_come_back(tmp_path: Path) -> None:
    with LogReader(_kept(tmp_path / "a.mwk")) as reader:
        story = reader.story(1)
        assert story is not None
        assert [step.inputs for step in story.steps] == [INPUTS]
        ((number, found),) = reader.verdict_lines()
        assert found == story.steps[0]
        assert reader.verdict_lines(number) == []


def test_large_ones_make_their_caller_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING_BYTES", 10)
    monkeypatch.setattr(writer_module, "PATIENCE_S", 0.05)
    with LogWriter(tmp_path / "a.mwk") as writer:
        with writer._mutex:
            writer._waiting_bytes = len(NOTE.data)  # as if the thread had not come round
        with pytest.raises(StoreError, match="too slow"):
            writer.put(NOTE)
        writer._waiting_bytes = 0


def test_what_is_wrong_with_them_is_found(tmp_path: Path) -> None:
    path = _kept(tmp_path / "a.mwk")
    run = FlowRun(
        id=1, device="lem-1", flow="f", created=START, updated=START,
        steps=(FlowStepRun(name="look", attachments=(PHOTO.sha256, "ab" * 32)),),
    )  # fmt: skip
    with LogWriter(path) as writer:
        writer.put(run)
    (missing,) = verify(path)
    assert missing.code == "attachment.missing"
    assert "'look' of the flow 1" in missing.text
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE attachment SET data = x'00' WHERE sha256 = ?", (PHOTO.sha256,))
    assert [problem.code for problem in verify(path)] == ["attachment.missing", "attachment.bytes"]


def test_only_whole_ones_are_recovered(tmp_path: Path) -> None:
    path = _kept(tmp_path / "a.mwk")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE attachment SET data = x'00' WHERE sha256 = ?", (PHOTO.sha256,))
        db.execute("UPDATE step SET inputs = '{\"v\":'")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    found = recover(path, tmp_path / "b.mwk")
    assert found.rows["attachment"] == 1
    assert "1 rows of attachment hold other bytes than their sum tells and are left out." in found.mended
    assert "1 rows of step hold unreadable inputs, which is left out." in found.mended
    with LogReader(tmp_path / "b.mwk") as reader:
        assert list(reader.attachments()) == [replace(NOTE, at=START)]
        story = reader.story(1)
        assert story is not None
        assert [step.inputs for step in story.steps] == [None]


def test_out_and_in_again(tmp_path: Path) -> None:
    file, other = tmp_path / "a.jsonl", tmp_path / "b.mwk"
    with LogReader(_kept(tmp_path / "a.mwk")) as reader:
        transfer.export_jsonl(reader, file)
        before, story = list(reader.attachments()), reader.story(1)
    with LogWriter(other) as writer:
        transfer.import_jsonl(file, writer, close_unfinished=False)
    with LogReader(other) as reader:
        assert list(reader.attachments()) == before
        assert reader.story(1) == story


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('Z","data":"47', 'Z","data":"48', "not those of its sha256"),
        ('"inputs":{"v":1,', '"inputs":7,"x":{', "expected"),
    ],
)
def test_a_line_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str, what: str) -> None:
    file = tmp_path / "a.jsonl"
    with LogReader(_kept(tmp_path / "a.mwk")) as reader:
        transfer.export_jsonl(reader, file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with LogWriter(tmp_path / "b.mwk") as writer, pytest.raises(StoreError, match=what):
        transfer.import_jsonl(file, writer)


@pytest.mark.parametrize("form", ["mwk", "jsonl"])
def test_pictures_stay_behind_under_pseudonyms(tmp_path: Path, form: str) -> None:
    with LogReader(_kept(tmp_path / "a.mwk")) as reader:
        done = share(reader, tmp_path / f"plain.{form}", Redaction(()))
        assert (done.attachments, done.attachments_left_out) == (2, 0)
        done = share(reader, tmp_path / f"hidden.{form}", Redaction([Kind.NAMES]))
        assert (done.attachments, done.attachments_left_out) == (0, 2)
        done = share(reader, tmp_path / f"secret.{form}", Redaction((), secrets=["\N{SNOWMAN}\N{SNOWMAN}", "Grüße"]))
        assert (done.attachments, done.attachments_left_out) == (1, 1)
    if form == "mwk":
        with LogReader(tmp_path / "plain.mwk") as other:
            assert other.attachment(PHOTO.sha256) == PHOTO


def test_gateways_that_are_gone_from_the_tree_get_pseudonyms_too(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    with LogReader(_kept(tmp_path / "a.mwk")) as reader:
        share(reader, file, Redaction([Kind.NAMES, Kind.PLACES]))
    assert "gone-" not in file.read_text()
    records = map(json.loads, file.read_text().splitlines())
    kept = next(record["steps"][0]["inputs"] for record in records if record["type"] == "interaction")
    assert (kept["v"], kept["by"], kept["grid"]["gw"][0][1:]) == (1, ["from_user"], [0, 1])
    assert kept["gateway"].startswith("name-")
    assert kept["grid"]["id"].startswith("place-")


def test_an_older_file_gets_the_table_and_keeps_its_history(tmp_path: Path) -> None:
    path = tmp_path / "old.mwk"
    shutil.copy(Path(__file__).parents[2] / "vectors" / "workspaces" / "version-5.mwk", path)
    with LogWriter(path) as writer:
        writer.put(PHOTO)
    assert verify(path) == []
    with LogReader(path) as reader:
        assert reader.attachment(PHOTO.sha256) == PHOTO
        assert reader.verdict_lines() == []
        story = reader.story(1)
        assert story is not None
        assert story.steps
        assert all(step.inputs is None for step in story.steps)
    newest = tmp_path / "new.mwk"
    shutil.copy(Path(__file__).parents[2] / "vectors" / "workspaces" / "version-6.mwk", newest)
    with LogReader(newest) as reader:
        assert reader.attachment(logs.PHOTO.sha256) == PHOTO
        assert reader.verdict_lines()
