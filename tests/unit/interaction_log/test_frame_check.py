"""Bytes of frames that are not those that were written."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest

from app.interaction_log.frame_check import PLACE_MOST, AlteredFrame, altered_byte, altered_frames
from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify


@pytest.mark.parametrize("length", [1, 2, 5, 300, 4096, PLACE_MOST])
def test_the_place_of_one_altered_byte_is_computed_back(length: int) -> None:
    rng = random.Random(length)
    data = rng.randbytes(length)
    for offset in {0, length - 1, rng.randrange(length)}:
        for change in (0x01, 0x80, 0xFF):
            altered = bytearray(data)
            altered[offset] ^= change
            assert altered_byte(bytes(altered), crc32(data)) == (offset, data[offset])


def test_no_place_is_told_where_more_than_one_byte_differs() -> None:
    rng = random.Random(4)
    data = rng.randbytes(200)
    altered = bytes(byte ^ 0x55 for byte in data)
    assert altered_byte(altered, crc32(data)) is None
    assert altered_byte(data[:-1], crc32(data)) is None
    assert altered_byte(b"", crc32(data)) is None
    long = bytes(PLACE_MOST + 1)
    assert altered_byte(b"\x01" + long[1:], crc32(long)) is None


def test_the_writer_keeps_a_sum_of_every_frame_and_an_altered_byte_is_found(tmp_path: Path, kept_log: Path) -> None:
    path = tmp_path / "altered.mwk"
    shutil.copy(kept_log, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute("SELECT count(*) FROM frame WHERE crc IS NULL").fetchone() == (0,)
        number, interaction, data = db.execute(
            "SELECT id, interaction, data FROM frame WHERE interaction IS NOT NULL AND length(data) > 3"
        ).fetchone()
        assert verify(path) == []
        altered = bytes([*data[:2], data[2] ^ 0x20, *data[3:]])
        db.execute("UPDATE frame SET data = ? WHERE id = ?", (altered, number))
    with LogReader(path) as reader:
        (found,) = altered_frames(reader)
    assert found == AlteredFrame(
        frame=number, interaction=interaction, crc=crc32(data), crc_now=crc32(altered), offset=2, was=data[2],
        now=altered[2],
    )  # fmt: skip
    (problem,) = verify(path)
    assert (problem.code, problem.interaction) == ("frame.bytes", interaction)
    assert f"Frame {number} of interaction {interaction}" in problem.text
    assert f"offset 2 was {data[2]:02X} and is {altered[2]:02X}" in problem.text


def test_frames_of_older_formats_have_no_sum_and_are_no_problem(tmp_path: Path, kept_log: Path) -> None:
    path = tmp_path / "old.mwk"
    shutil.copy(kept_log, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE frame SET crc = NULL, data = x'00'")
    assert verify(path) == []
