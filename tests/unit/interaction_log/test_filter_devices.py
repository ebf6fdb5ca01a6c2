"""The filter language asked of the device tree, and what a filter needs to know to judge."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.errors import FilterError
from app.interaction_log.filters import Context, parse, parse_for_devices
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame
from app.model.reading import DeviceState, LinkState
from tests.unit.interaction_log.logs import START, fresh

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
TREE = {
    device.id: device
    for device in (
        Device(id="north", name="North", kind=NodeKind.SITE),
        Device(id="g-1", name="Grid one", kind=NodeKind.GRID, parent="north"),
        Device(id="gw-1", name="Gateway", kind=NodeKind.GATEWAY, parent="g-1", adapter="ems", serial="4711"),
        Device(id="m-1", name="Shop Größe", parent="gw-1", adapter="lem", serial="0123", model="DCBM 400"),
        Device(id="m-2", name="Spare", parent="north", adapter="dlms"),
    )
}
STATES = {
    "m-1": DeviceState(
        device="m-1",
        link=LinkState.ONLINE,
        link_text="answers since noon",
        facts={"firmware": "2.10", "is_on": True, "credit": {"value": "12.5", "unit": "kWh"}},
    ),
    "gw-1": DeviceState(device="gw-1", link=LinkState.FAULT),
}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", "north g-1 gw-1 m-1 m-2"),
        ("device:m-*", "m-1 m-2"),
        ("name ~ gr", "g-1 m-1"),
        ("adapter:lem or adapter = ems", "gw-1 m-1"),
        ("kind:meter", "m-1 m-2"),
        ("kind != meter", "north g-1 gw-1"),
        ("serial:*", "gw-1 m-1"),
        ("serial:0123", "m-1"),
        ("serial != 0123", "north g-1 gw-1 m-2"),
        ("meter:0123", "m-1"),
        ("meter:4711", ""),
        ("meter:spare", "m-2"),
        ("model ~ dcbm", "m-1"),
        ("link:online", "m-1"),
        ("status:fault", "gw-1"),
        ("not link:off", "gw-1 m-1"),
        ("site:north", "north g-1 gw-1 m-1 m-2"),
        ("grid:g-1", "g-1 gw-1 m-1"),
        ("gateway:gw*", "gw-1 m-1"),
        ("grid:g-1 kind:meter", "m-1"),
        ("fact.credit < 13", "m-1"),
        ("fact.credit < 12.5", ""),
        ("fact.firmware:2.1*", "m-1"),
        ("fact.is_on = true", "m-1"),
        ("not fact.is_on:*", "north g-1 gw-1 m-2"),
        ("größe", "m-1"),
        ('"since noon"', "m-1"),
        ("text:spa*", "m-2"),
    ],
)
def test_devices_that_are_meant(text: str, meant: str) -> None:
    where = parse_for_devices(text, NOW)
    assert parse_for_devices(str(where), NOW) == where
    found = [d.id for d in TREE.values() if where.matches_device(d, STATES.get(d.id, DeviceState(device=d.id)), TREE)]
    assert found == meant.split()
    assert where.is_everything is (text == "")


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("kind:meter latency > 2s", 11, "latency is not known of devices; they have device, name"),
        ("result.x:1", 0, "result is not known of devices"),
        ("kind:read", 5, "must be one of site, grid, gateway, meter"),
        ("status:FAILED", 7, "link: must be one of off"),
        ("site != north", 5, "site takes : or = or ~, not !="),
        ("fact:x", 4, "fact needs a name"),
    ],
)
def test_what_devices_do_not_have(text: str, position: int, said: str) -> None:
    with pytest.raises(FilterError, match=said) as caught:
        parse_for_devices(text, NOW)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("status:failed duration > 2s result.x > 1 reason:* parent:3 since:-2h relay", ""),
        ("latency > 2s", "attempts"),
        ("not (waited < 1s or follows:5)", "attempts chain"),
        ("bytes.in ~ 68 site:a", "devices frames"),
        ("finding:CLOCK actor ~ us", "findings steps"),
        ("step:meter serial:1", "devices steps"),
    ],
)
def test_what_a_filter_needs_beside_the_record(text: str, needs: str) -> None:
    assert parse(text, NOW).needs == frozenset(needs.split())


def test_what_is_not_given_counts_as_not_there() -> None:
    item = fresh(1)
    where = parse("bytes ~ 68 16", NOW)
    frame = Frame(at=START, device="lem-1", link="l", direction=Direction.IN, data=b"\x01\x68\x16", interaction=1)
    assert not where.matches(item)
    assert where.matches(item, context=Context(frames=[frame]))
    assert str(where.among(5, 9)) == 'id:5..9 bytes ~ "68 16"'
    assert str(parse("", NOW).among(5, 9)) == "id:5..9"
