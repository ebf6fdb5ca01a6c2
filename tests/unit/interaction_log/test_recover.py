"""What can be read of a damaged workspace, and what is said of the rest."""

from __future__ import annotations

import random
import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from app.errors import StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.recover import damage_of, recover
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from tests.unit.interaction_log import logs

PAGE = 4096
COUNT = 700


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.mwk"
    with LogWriter(path) as writer:
        for changes in logs.calls(COUNT):
            writer.put(*changes)
        writer.flush(text=True)
    return path


def _pages(path: Path, table: str) -> list[int]:
    """Leaf pages of a table, in the order of its rows."""
    db = sqlite3.connect(path)
    data = path.read_bytes()
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    db.close()

    def walk(number: int) -> list[int]:
        start = (number - 1) * PAGE
        if data[start] == 13:
            return [number]
        cells = int.from_bytes(data[start + 3 : start + 5], "big")
        children = []
        for n in range(cells):
            at = start + 12 + 2 * n
            cell = start + int.from_bytes(data[at : at + 2], "big")
            children.append(int.from_bytes(data[cell : cell + 4], "big"))
        children.append(int.from_bytes(data[start + 8 : start + 12], "big"))
        return [leaf for child in children for leaf in walk(child)]

    return walk(root)


def _broken(whole: Path, tmp_path: Path, *pages: int) -> Path:
    data = bytearray(whole.read_bytes())
    for number in pages:
        data[(number - 1) * PAGE : number * PAGE] = b"\xff" * PAGE
    path = tmp_path / "broken.mwk"
    path.write_bytes(data)
    return path


def _everything(path: Path) -> list[object]:
    with LogReader(path) as reader:
        return [reader.story(i.id) for i in reader.page(after=0, limit=COUNT)]


def test_a_whole_file_comes_across_whole(whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.mwk"
    found = recover(whole, target)
    assert damage_of(whole, thorough=True) == damage_of(whole, thorough=False) == ""
    assert found.notes == ()
    assert _everything(target) == _everything(whole)
    assert verify(target) == verify(whole) == []


def test_a_broken_page_costs_its_own_rows_and_says_which(whole: Path, tmp_path: Path) -> None:
    leaves = _pages(whole, "interaction")
    assert len(leaves) > 20
    path = _broken(whole, tmp_path, leaves[5], leaves[15])
    assert damage_of(path, thorough=True)
    assert damage_of(path, thorough=False)
    found = recover(path, tmp_path / "new.mwk")
    lost = [one for one in found.lost if one.table == "interaction"]
    assert len(lost) == 2 == len(found.lost)
    gone = {number for one in lost for number in range(one.first or 0, (one.last or 0) + 1)}
    with LogReader(tmp_path / "new.mwk") as reader, LogReader(whole) as before:
        kept = reader.page(after=0, limit=COUNT)
        assert set(kept.ids) | gone == set(range(1, COUNT + 1))
        assert not set(kept.ids) & gone
        for interaction in kept:
            assert reader.interaction(interaction.id) == before.interaction(interaction.id)
        for one in lost:
            assert one.first is not None
            assert one.last is not None
            first, last = before.interaction(one.first - 1), before.interaction(one.last + 1)
            assert first is not None
            assert last is not None
            assert (one.since, one.until) == (first.created, last.created)
            assert f"{one.first} to {one.last}" in str(one)


def test_the_first_and_the_last_page(whole: Path, tmp_path: Path) -> None:
    leaves = _pages(whole, "interaction")
    found = recover(_broken(whole, tmp_path, leaves[0], leaves[-1]), tmp_path / "new.mwk")
    front, back = found.lost
    assert front.first is None
    assert front.last is not None
    assert back.last is None
    assert back.first is not None
    assert found.rows["interaction"] == back.first - 1 - front.last
    assert str(front).startswith(f"Lost: interactions (interaction) up to number {front.last}, before 2026-")
    assert str(back).startswith(f"Lost: interactions (interaction) from number {back.first} on, after 2026-")


def test_words_come_back_from_their_index(whole: Path, tmp_path: Path) -> None:
    found = recover(_broken(whole, tmp_path, *_pages(whole, "word")), tmp_path / "new.mwk")
    assert any("found again" in text for text in found.mended)
    assert _everything(tmp_path / "new.mwk") == _everything(whole)


def test_a_file_that_was_cut_off(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mwk"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert damage_of(path, thorough=False)
    found = recover(path, tmp_path / "new.mwk")
    assert found.lost
    assert found.rows["interaction"] > COUNT // 10
    assert len(_everything(tmp_path / "new.mwk")) == found.rows["interaction"]


def test_values_that_cannot_be_right_do_not_hide_the_others(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.mwk"
    path.write_bytes(whole.read_bytes())
    db = sqlite3.connect(path)
    db.execute("UPDATE interaction SET params = '{\"a\":' WHERE id = 7")
    db.execute("UPDATE interaction SET failure = '[1]' WHERE id = 8")
    db.execute("UPDATE interaction SET created = 9000000000000000000 WHERE id = 9")
    db.execute("UPDATE interaction SET status_w = 9999 WHERE id = 10")
    db.execute("UPDATE interaction SET device_w = 8888 WHERE id = 11")
    db.commit()
    db.close()
    found = recover(path, tmp_path / "new.mwk")
    assert found.rows["interaction"] == COUNT - 2
    with LogReader(tmp_path / "new.mwk") as reader:
        assert len(list(reader.page(after=0, limit=COUNT))) == COUNT - 2
        seventh, eleventh = reader.interaction(7), reader.interaction(11)
        assert seventh is not None
        assert seventh.params == {}
        assert eleventh is not None
        assert eleventh.device == "[lost word 8888]"
        assert reader.interaction(9) is reader.interaction(10) is None
    assert any("unreadable params" in text for text in found.mended)


def test_whatever_is_broken_the_rest_can_be_read(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    rng = random.Random(7)
    for attempt in range(3):
        broken = bytearray(data)
        for _ in range(20):
            broken[rng.randrange(PAGE, len(broken))] = rng.randrange(256)
        path, target = tmp_path / f"{attempt}.mwk", tmp_path / f"{attempt}-new.mwk"
        path.write_bytes(broken)
        try:
            recover(path, target)
        except StoreError:
            continue  # the table of contents
        with LogReader(target) as reader:
            for interaction in reader.page(after=0, limit=COUNT):
                reader.story(interaction.id)
            reader.findings()
            reader.snapshot()


@pytest.mark.parametrize(("size", "junk"), [(100, b"\xff"), (512, b"\0"), (PAGE, b"\xff")])
def test_a_lost_beginning_is_made_anew(whole: Path, tmp_path: Path, size: int, junk: bytes) -> None:
    path, target = tmp_path / "headless.mwk", tmp_path / "new" / "new.mwk"
    target.parent.mkdir()
    path.write_bytes(junk * size + whole.read_bytes()[size:])
    found = recover(path, target)
    assert [text for text in found.notes if "was lost" in text] == list(found.notes[:1])
    assert len(found.notes) == 1
    with LogReader(target) as made, LogReader(whole) as kept:
        assert made.count() == kept.count()
        assert made.story(COUNT // 2) == kept.story(COUNT // 2)
        assert made.snapshot().devices == kept.snapshot().devices
    assert [one.name for one in target.parent.iterdir()] == ["new.mwk"]


def test_a_lost_table_of_contents_is_refused_in_words(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "no-contents.mwk"
    path.write_bytes(b"\xff" * 8 * PAGE + whole.read_bytes()[8 * PAGE :])
    with pytest.raises(StoreError, match="table of contents"):
        recover(path, tmp_path / "new.mwk")
    assert not (tmp_path / "new.mwk-first-page").exists()


@pytest.mark.slow
def test_heavy_damage_costs_no_more_memory_than_light(tmp_path: Path) -> None:
    """No header, every fiftieth page zeroed, the end cut off.

    By hand: 1 GB of 6.3 million interactions, header whole, 2,000 pages zeroed, end cut off: 5.5 minutes on a busy
    machine, 47 MB at most.
    """
    path, target = tmp_path / "heavy.mwk", tmp_path / "new.mwk"
    with LogWriter(path) as writer:
        for changes in logs.calls(6_000):
            writer.put(*changes)
        writer.flush(text=True)
    rng = random.Random(9)
    with path.open("r+b") as file:
        pages = file.seek(0, 2) // PAGE
        for _ in range(pages // 50):
            file.seek(rng.randrange(8, pages) * PAGE)
            file.write(bytes(PAGE))
        file.seek(0)
        file.write(b"\xff" * 100)
        file.truncate(pages * PAGE * 9 // 10 - 123)
    tracemalloc.start()
    try:
        found = recover(path, target)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert found.rows["interaction"] > 3_000
    lost = [one for one in found.lost if one.table == "interaction"]
    assert lost
    with LogReader(target) as reader:
        kept = set()
        after = 0
        while page := reader.page(after=after, limit=500):
            kept.update(page.ids)
            after = page.ids[-1]
    assert len(kept) == found.rows["interaction"]
    for one in lost:
        low, high = one.first or 1, one.last or 6_000
        assert not kept.intersection(range(low, high + 1)), "what is said to be lost is"
