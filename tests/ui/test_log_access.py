"""The reader thread: order, cancelling, closing, and receivers that are gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from app.errors import StoreError, WorkbenchError
from app.interaction_log.reader import LogReader
from tests.ui.log_fakes import MemoryReader, interaction, memory_log
from ui.log_access import LogAccess


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader(interaction(n) for n in range(1, 11))


@pytest.fixture
def log(reader: MemoryReader, qtbot: QtBot) -> Iterator[LogAccess]:
    access = memory_log(reader)
    yield access
    reader.gate.set()
    access.close()


def fail(error: WorkbenchError) -> None:
    raise error


def test_answers_come_on_the_gui_thread_in_order(log: LogAccess, qtbot: QtBot) -> None:
    seen: list[tuple[int, bool]] = []
    here = threading.get_ident()

    def note(value: int) -> None:
        seen.append((value, threading.get_ident() == here))

    for number in range(5):
        log.ask(partial(lambda n, reader: reader.span()[2] + n, number), note, fail)
    qtbot.waitUntil(lambda: len(seen) == 5)
    assert seen == [(10 + n, True) for n in range(5)]


def test_a_failure_is_a_sentence(log: LogAccess, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.is_broken = True
    failures: list[str] = []
    log.ask(lambda r: r.page(), lambda _rows: pytest.fail("no answer expected"), lambda e: failures.append(str(e)))
    qtbot.waitUntil(lambda: bool(failures))
    assert "could not be read" in failures[0]


def test_a_bug_in_a_question_reaches_the_gui_thread(log: LogAccess, qtbot: QtBot) -> None:
    with qtbot.captureExceptions() as caught:
        log.ask(lambda _reader: 1 // 0, lambda _v: None, fail)
        qtbot.waitUntil(lambda: bool(caught))
    assert caught[0][0] is ZeroDivisionError


def test_cancel_ends_a_running_query_within_100_ms(log: LogAccess, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.gate.clear()
    answers: list[object] = []
    running = threading.Event()

    def slow(r: LogReader) -> int:
        running.set()
        return r.count(None)

    ticket = log.ask(slow, answers.append, answers.append)
    assert running.wait(5)
    ticket.cancel()
    log.ask(lambda r: r.span(), answers.append, fail)
    qtbot.waitUntil(lambda: bool(answers))
    assert answers == [(1, 10, 10)]
    assert not ticket.is_open


def test_a_ticket_cancelled_before_its_turn_is_not_run(log: LogAccess, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.gate.clear()
    first = log.ask(lambda r: r.count(None), lambda _v: None, fail)
    second = log.ask(lambda r: r.page(), lambda _v: pytest.fail("cancelled"), fail)
    second.cancel()
    first.cancel()
    done: list[int] = []
    log.ask(lambda _r: 1, done.append, fail)
    qtbot.waitUntil(lambda: bool(done))
    assert reader.asked == []


def test_a_background_question_makes_way_and_is_asked_again(log: LogAccess, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.gate.clear()
    order: list[str] = []
    running = threading.Event()

    def slow(r: LogReader) -> int:
        running.set()
        return r.count(None)

    log.ask(slow, lambda v: order.append(f"count {v}"), fail, background=True)
    assert running.wait(5)
    log.ask(lambda r: r.span()[2], lambda v: order.append(f"span {v}"), fail)
    qtbot.waitUntil(lambda: order == ["span 10"])
    reader.gate.set()
    qtbot.waitUntil(lambda: order == ["span 10", "count 10"])


def test_nothing_is_delivered_to_a_destroyed_owner(log: LogAccess, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.gate.clear()
    owner = QObject()
    log.ask(lambda r: r.count(None), lambda _v: pytest.fail("the owner is gone"), fail, owner=owner)
    owner.deleteLater()
    destroyed: list[int] = []
    owner.destroyed.connect(lambda: destroyed.append(1))
    qtbot.waitUntil(lambda: bool(destroyed))
    reader.gate.set()
    done: list[int] = []
    log.ask(lambda _r: 1, done.append, fail)
    qtbot.waitUntil(lambda: bool(done))


def test_close_interrupts_joins_and_is_final(reader: MemoryReader, qtbot: QtBot) -> None:
    log = memory_log(reader)
    reader.gate.clear()
    running = threading.Event()

    def slow(r: LogReader) -> int:
        running.set()
        return r.count(None)

    log.ask(slow, lambda _v: pytest.fail("closed"), lambda _e: pytest.fail("closed"))
    assert running.wait(5)
    log.close()
    assert reader.is_closed
    log.close()
    late = log.ask(lambda _r: 1, lambda _v: pytest.fail("closed"), fail)
    assert late.is_cancelled
    assert not any(thread.name == "log-reader" and thread.is_alive() for thread in threading.enumerate())


def test_a_workspace_that_cannot_be_opened_fails_each_question_and_may_open_later(
    reader: MemoryReader, qtbot: QtBot
) -> None:
    tries: list[int] = []

    def opened(_path: Path) -> LogReader:
        tries.append(1)
        if len(tries) == 1:
            raise StoreError("bench.mwk is not a workspace.")
        return cast("LogReader", reader)

    log = LogAccess(Path("bench.mwk"), open_reader=opened)
    failures: list[str] = []
    answers: list[int] = []
    log.ask(lambda r: r.span()[2], answers.append, lambda e: failures.append(str(e)))
    qtbot.waitUntil(lambda: bool(failures))
    log.ask(lambda r: r.span()[2], answers.append, fail)
    qtbot.waitUntil(lambda: answers == [10])
    log.close()
