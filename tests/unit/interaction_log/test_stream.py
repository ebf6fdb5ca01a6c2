"""Following the bytes of a link: in their order, in stretches that join, and those of other links left out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import ParameterError
from app.interaction_log import stream
from app.interaction_log.reader import LogReader
from app.interaction_log.stream import earlier, follow, heading, hex_lines, later
from app.interaction_log.writer import LogWriter
from app.model.interaction import Direction, Frame
from tests.unit.interaction_log import logs
from tests.unit.interaction_log.logs import START

COUNT = 90


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each command asks and is answered on a line; in between the same device polls over http, as others do."""
    file = tmp_path_factory.mktemp("stream") / "stream.mwk"
    with LogWriter(file) as writer:
        for number in range(1, COUNT + 1):
            at = START + timedelta(seconds=number)
            writer.put(logs.queued(number, device="m-1", created=at, updated=at))
            for after, way, link, device, whose in (
                (0.3, Direction.IN, "line", "m-1", number),  # written before what it answers
                (0.1, Direction.OUT, "line", "m-1", number),
                (0.2, Direction.IN, "http", "m-1", None),
                (0.2, Direction.IN, "line", "m-2", None),
            ):
                writer.put(
                    Frame(at=at + timedelta(seconds=after), device=device, link=link, direction=way,
                          data=f"{number} {way.value} {link}".encode(), interaction=whose)
                )  # fmt: skip
        writer.put(logs.queued(COUNT + 1, device="m-1"))
    return file


def test_one_link_in_the_order_of_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PAGE", 10)
    with LogReader(path) as reader:
        found = follow(reader, 40)
        assert (found.device, found.link, found.has_earlier, found.has_later) == ("m-1", "line", True, True)
        assert found.at == stream.BEFORE
        assert found.frames[found.at][1].data == b"40 out line"
        assert found.commands[40]
        stretches = [found]
        while stretches[0].has_earlier:
            stretches.insert(0, earlier(reader, stretches[0]))
        while stretches[-1].has_later:
            stretches.append(later(reader, stretches[-1]))
        assert later(reader, stretches[-1]).frames == ()
        told = [frame.data.decode() for one in stretches for _id, frame in one.frames]
        assert told == [f"{n} {way} line" for n in range(1, COUNT + 1) for way in ("out", "in")]


def test_all_links_of_the_device(path: Path) -> None:
    with LogReader(path) as reader:
        found = follow(reader, 1, all_links=True)
        assert [frame.data for _id, frame in found.frames[:3]] == [b"1 out line", b"1 in http", b"1 in line"]
        assert not found.has_earlier


@pytest.mark.parametrize(("number", "said"), [(999, "no interaction 999"), (COUNT + 1, "has no bytes")])
def test_what_cannot_be_followed_is_said(path: Path, number: int, said: str) -> None:
    with LogReader(path) as reader, pytest.raises(ParameterError, match=said):
        follow(reader, number)


def test_in_words_and_octets() -> None:
    frame = Frame(at=START, device="m", link="line", direction=Direction.OUT, data=bytes(range(60, 80)), interaction=7)
    assert heading(frame, "READ") == "-> 20 bytes #7 READ"
    assert hex_lines(frame.data) == [
        "000000  3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK",
        "000010  4c 4d 4e 4f                                      LMNO",
    ]
