"""Garbage dies on the GUI thread."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot

from ui.garbage import Collector

died: list[int] = []


class Knot:
    """In a cycle with itself; says on which thread it died."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        died.append(threading.get_ident())


@pytest.fixture
def collector(qtbot: QtBot) -> Iterator[Collector]:
    died.clear()
    gc.enable()
    made = Collector()
    made.start()
    yield made
    gc.disable()


def allocate() -> list[list[int]]:
    """More than every threshold of the interpreter: it would collect here."""
    return [[number] for number in range(150_000)]


def test_a_worker_that_allocates_destroys_nothing(collector: Collector) -> None:
    Knot()
    worker = threading.Thread(target=allocate)
    worker.start()
    worker.join()
    assert died == []
    kept = allocate()
    collector.look()
    assert len(kept) > gc.get_threshold()[0]
    assert died == [threading.get_ident()]


def test_it_looks_by_itself(collector: Collector, qtbot: QtBot) -> None:
    Knot()
    kept = allocate()
    qtbot.waitUntil(lambda: bool(died))
    assert kept
    assert died == [threading.get_ident()]
