"""What else happened around an interaction."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import ParameterError
from app.interaction_log.reader import LogReader
from app.interaction_log.story import around
from app.interaction_log.writer import LogWriter
from app.model.device import Device, NodeKind
from app.model.reading import DeviceState, Finding, LinkState, Severity
from tests.unit.interaction_log import logs


def _device(name: str, kind: NodeKind, parent: str = "") -> Device:
    return Device(id=name, name=name, kind=kind, parent=parent)


@pytest.fixture
def field(tmp_path: Path) -> Path:
    path = tmp_path / "field.mwk"
    with LogWriter(path) as writer:
        writer.put(
            _device("site", NodeKind.SITE),
            _device("grid", NodeKind.GRID, "site"),
            _device("gate", NodeKind.GATEWAY, "grid"),
            _device("m1", NodeKind.METER, "gate"),
            _device("m2", NodeKind.METER, "gate"),
            _device("m3", NodeKind.METER, "grid"),
            _device("far", NodeKind.METER, "site"),
        )
        for number, device in ((1, "m1"), (5, "m2"), (10, "m1"), (12, "m3"), (14, "far"), (15, "gate"), (60, "m1")):
            writer.put(logs.queued(number, device=device))
        at = logs.START + timedelta(seconds=11)
        for device in ("grid", "far"):
            writer.put(Finding(at=at, device=device, severity=Severity.BAD, code="DARK", text="No supply."))
        writer.put(DeviceState(device="gate", link=LinkState.FAULT, link_text="gone", link_since=at))
        writer.flush()
    return path


def test_device_gateway_and_grid_within_the_time(field: Path) -> None:
    with LogReader(field) as reader:
        found = around(reader, 10, 6)
    assert [(one.offset_s, one.kind, one.place, one.device) for one in found] == [
        (-5.0, "interaction", "gateway", "m2"),
        (1.0, "finding", "grid", "grid"),
        (1.0, "link", "gateway", "gate"),
        (2.0, "interaction", "grid", "m3"),
        (5.0, "interaction", "gateway", "gate"),
    ]
    assert found[0].interaction == 5
    assert found[0].text == "READ_LIVE QUEUED"
    assert found[1].text == "DARK: No supply."


def test_a_wider_time_and_a_device_that_is_not_in_the_tree(field: Path) -> None:
    with LogReader(field) as reader:
        assert [one.interaction for one in around(reader, 10, 60) if one.place == "device"] == [1, 60]
        assert [one.device for one in around(reader, 14, 5)] == ["far"]
    with LogWriter(field) as writer:
        writer.put(logs.queued(70, device="unknown"))
        writer.flush()
    with LogReader(field) as reader:
        assert around(reader, 70, 3600) == []


def test_what_cannot_be_asked(field: Path) -> None:
    with LogReader(field) as reader:
        with pytest.raises(ParameterError, match="no interaction 999"):
            around(reader, 999, 5)
        with pytest.raises(ParameterError, match="0 to 604800"):
            around(reader, 1, 1e9)
