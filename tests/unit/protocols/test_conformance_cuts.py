"""The vector runners find a parser whose messages depend on how the octets arrive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.protocols import conformance, rfc1662
from app.protocols import iec62056_21 as iec

VECTORS = Path(__file__).parents[2] / "vectors"


def failures(name: str) -> str:
    document: dict[str, Any] = json.loads((VECTORS / name).read_text("utf-8"))
    return "\n".join(map(str, conformance.run(document).failures))


def test_an_iec_framer_that_loses_the_first_octet_of_a_chunk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = iec.Framer.feed
    monkeypatch.setattr(iec.Framer, "feed", lambda self, data: feed(self, data[1:] if self.pending else data))
    found = failures("iec62056.json")
    assert "octet by octet the messages are others" in found
    assert "cut at octet 1 the messages are others" in found


def test_a_decoder_that_loses_the_first_octet_of_a_chunk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = rfc1662.Decoder.feed
    monkeypatch.setattr(rfc1662.Decoder, "feed", lambda self, data: feed(self, data[1:] if self.pending else data))
    found = failures("rfc1662.json")
    assert "octet by octet the events are others" in found
    assert "cut at octet 3 the events are others" in found
