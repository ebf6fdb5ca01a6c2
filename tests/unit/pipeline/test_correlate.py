"""References under way, retired ones and how long each stays known."""

from __future__ import annotations

import pytest

from app.pipeline import correlate
from app.pipeline.correlate import Correlator, Expectation
from app.ports import Answer, LateOrPushed


def test_each_retired_reference_is_known_for_a_time_of_its_own() -> None:
    book = Correlator()
    for number, ref in ((1, "slow"), (2, "quick")):
        book.expect("s", ref, Expectation(number, 1))
    book.retire(1, now=0.0, late_s=1000.0)
    book.retire(2, now=5.0, late_s=10.0)
    assert book.next_at() == 15.0
    assert list(book.sweep(15.0)) == []
    assert (book.find("s", "quick"), book.find("s", "slow")) == (None, Expectation(1, 1))
    list(book.sweep(1000.0))
    assert book.find("s", "slow") is None
    assert book.next_at() is None


def test_a_reference_that_is_given_anew_is_not_forgotten() -> None:
    book = Correlator()
    book.expect("s", "7", Expectation(1, 1))
    book.retire(1, now=0.0, late_s=10.0)
    book.expect("s", "7", Expectation(2, 1))
    list(book.sweep(11.0))
    assert book.find("s", "7") == Expectation(2, 1)


def test_many_retired_references_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlate, "MAX_RETIRED", 3)
    book = Correlator()
    for number in range(1, 6):
        book.expect("s", f"r{number}", Expectation(number, 1))
        book.retire(number, now=float(number), late_s=1e6)
    known = [number for number in range(1, 6) if book.find("s", f"r{number}") is not None]
    assert known == [3, 4, 5]


def test_an_uplink_that_came_before_its_reference_is_handed_over() -> None:
    book = Correlator()
    early = LateOrPushed("7", Answer())
    book.park("s", "7", early, now=0.0)
    assert book.expect("s", "7", Expectation(1, 1)) == [early]
    book.park("s", "8", LateOrPushed("8", Answer()), now=0.0)
    assert [ref for _scope, ref, _uplink in book.sweep(11.0)] == ["8"]
