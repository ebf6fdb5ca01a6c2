"""A workspace with some hundred interactions, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from tests.unit.interaction_log import logs


@pytest.fixture(scope="session")
def kept_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "kept.mwk"
    with LogWriter(path) as writer:
        for changes in logs.calls(400):
            writer.put(*changes)
        writer.flush(text=True)
    return path


@pytest.fixture
def reader(kept_log: Path) -> Iterator[LogReader]:
    with LogReader(kept_log) as opened:
        yield opened
