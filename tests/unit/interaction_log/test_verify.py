"""Planted problems are found, each by its name."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import StoreError
from app.interaction_log import verify as verify_module
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.interaction import Attempt
from app.model.records import OutboxItem
from app.model.status import Event, Status
from tests.unit.interaction_log.logs import START, fresh, line, message, queued


def plant(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize(
    ("code", "statements"),
    [
        ("status.differs", ["UPDATE interaction SET status_w = (SELECT id FROM word WHERE text = 'FAILED')"
                            " WHERE id = (SELECT interaction FROM step JOIN word ON word.id = step.event_w"
                            " WHERE word.text = 'SUCCEED' LIMIT 1)"]),
        ("history.missing", ["DELETE FROM step WHERE interaction = 7"]),
        ("history.illegal", ["UPDATE step SET event_w = (SELECT id FROM word WHERE text = 'SUSPEND')"
                             " WHERE id = (SELECT min(step.id) FROM step JOIN word ON word.id = step.event_w"
                             " WHERE word.text = 'SUCCEED')"]),
        ("history.illegal", ["UPDATE step SET event_w = (SELECT id FROM word WHERE text = 'lem-1') WHERE id = 1"]),
        ("status.unknown", ["UPDATE step SET status_w = (SELECT id FROM word WHERE text = 'lem-1') WHERE id = 1"]),
        ("attempt.gap", ["UPDATE attempt SET number = 2 WHERE interaction = (SELECT min(interaction) FROM attempt)"]),
        ("seq.low", ["UPDATE interaction SET seq = 0 WHERE id = 7"]),
        ("end.differs", ["UPDATE interaction SET is_open = 1 - is_open WHERE id = 7"]),
        ("end.differs", ["UPDATE interaction SET finished = NULL WHERE is_open = 0"]),
        ("outbox.dangling", ["UPDATE outbox SET interaction = 9999 WHERE id = (SELECT min(id) FROM outbox)"]),
        ("frame.dangling", ["UPDATE frame SET interaction = 9999 WHERE id = 5"]),
        ("step.dangling", ["INSERT INTO step SELECT NULL, 9999, at, step, event_w, status_w, code_w, attempt, actor_w,"
                           " text, inputs FROM step WHERE id = 1"]),
        ("inputs.unreadable", ["UPDATE step SET inputs = '[1]' WHERE id = (SELECT min(id) FROM step WHERE"
                               " inputs IS NOT NULL)"]),
        ("inputs.unreadable", ["UPDATE step SET inputs = '{' WHERE id = 1"]),
        ("attachment.bytes", ["UPDATE attachment SET data = x'00'"]),
        ("time.order", ["UPDATE interaction SET updated = created - 1 WHERE id = 7"]),
        ("time.order", ["UPDATE step SET at = at - 10000000 WHERE id = (SELECT max(step.id) FROM step"
                        " JOIN word ON word.id = event_w WHERE word.text = 'SUCCEED')"]),
        ("shared_with.dangling", ["UPDATE interaction SET shared_with = 9999 WHERE id = 7"]),
        ("flow.unreadable", ["UPDATE flow SET body = '{' WHERE id = 4"]),
        ("flow.unreadable", ["UPDATE flow SET kind = 'wish' WHERE id = 4"]),
        ("flow.unreadable", ["UPDATE flow SET id = 40 WHERE id = 4"]),
        ("flow.differs", ["UPDATE flow SET is_open = 0 WHERE id = 4"]),
        ("flow.differs", ["UPDATE flow SET device = 'lem-1' WHERE id = 4"]),
        ("interaction.dangling", ["UPDATE interaction SET command_w = 9999 WHERE id = 7"]),
    ],
)  # fmt: skip
def test_a_planted_problem_is_found(tmp_path: Path, kept_log: Path, code: str, statements: list[str]) -> None:
    path = tmp_path / "a.mwk"
    shutil.copy(kept_log, path)
    assert verify(path) == []
    plant(path, *statements)
    problems = verify(path)
    assert code in {problem.code for problem in problems}
    for problem in problems:
        assert problem.text.endswith(".")


def test_a_life_with_retries_is_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    item = queued(1)
    with LogWriter(path) as writer:
        writer.put(item, line(item, Event.ADMIT))
        for event in (Event.SEND, Event.FAIL, Event.ADMIT, Event.SEND, Event.SUCCEED):
            item = item.after(event, START)
            item = replace(item, updated=item.created, finished=item.created if item.finished else None)
            writer.put(item, line(item, event))
        writer.put(message(1, item), message(2, item))
        writer.put(*[Attempt(interaction=1, message=m, number=n, started=START) for m, n in ((1, 1), (1, 2), (2, 1))])
    assert verify(path) == []


def test_the_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "MAX_PROBLEMS", 5)
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        writer.put(*[queued(number) for number in range(1, 20)])
    problems = verify(path)
    assert [problem.code for problem in problems] == ["history.missing"] * 5 + ["more"]


def test_an_outbox_item_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        writer.put(OutboxItem(id=1, interaction=5, effect="X", payload={}, created=START))
    assert [(p.code, p.interaction) for p in verify(path)] == [("outbox.dangling", 5)]


def test_damage_is_a_problem_and_not_an_error(tmp_path: Path, kept_log: Path) -> None:
    path = tmp_path / "a.mwk"
    data = bytearray(kept_log.read_bytes())
    for page in range(20, len(data) // 4096, 3):
        data[page * 4096 : page * 4096 + 64] = b"\xee" * 64
    path.write_bytes(data)
    assert {problem.code for problem in verify(path)} == {"file.damaged"}
    path.write_bytes(data[:4096] + b"\xee" * (len(data) - 4096))
    assert {problem.code for problem in verify(path)} == {"file.damaged"}


def test_what_is_not_a_workspace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        verify(tmp_path / "none.mwk")
    (tmp_path / "a.mwk").write_text("something else entirely")
    with pytest.raises(StoreError, match="another kind"):
        verify(tmp_path / "a.mwk")


def test_a_new_interaction_is_version_one() -> None:
    assert fresh(1).status is Status.NEW
    assert queued(1).seq == 1
