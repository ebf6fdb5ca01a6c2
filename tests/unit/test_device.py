"""The ways to a device: switching keeps what is the device's and exchanges what is a way's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.device import Device, Route

DIRECT = Device(
    id="m", name="M", parent="grid", adapter="calin-v1", serial="47", settings={"url": "a"},
    attributes={"phases": 3, "dcu": 7, "gateway": "gw"},
)  # fmt: skip
HEAD_END = Device(
    id="m", name="M", parent="fleet", adapter="device-messaging", serial="47", settings={"url": "b"},
    attributes={"phases": 3, "plugin": "calin-api-v1", "relay_node": 7},
)  # fmt: skip
BOTH = DIRECT.with_way("directly", DIRECT.way_of(HEAD_END, "through the head-end"))


def test_there_and_back() -> None:
    assert (DIRECT.ways, BOTH.ways) == ((), ("directly", "through the head-end"))
    there = BOTH.by("through the head-end")
    assert there.ways == ("through the head-end", "directly")
    assert (there.adapter, there.parent, there.settings) == ("device-messaging", "fleet", {"url": "b"})
    assert there.attributes == HEAD_END.attributes
    back = there.by("directly")
    assert back.attributes == DIRECT.attributes
    assert (back.adapter, back.parent, back.settings) == (DIRECT.adapter, DIRECT.parent, DIRECT.settings)
    assert back.by("directly") is back
    with pytest.raises(KeyError):
        back.by("by cable")
    with pytest.raises(KeyError):
        DIRECT.by("")


def test_what_is_the_devices_goes_along() -> None:
    there = BOTH.by("through the head-end")
    changed = Device(**{name: getattr(there, name) for name in Device.__slots__} | {
        "attributes": {**there.attributes, "phases": 1, "plugin": "calin-api-v2"}
    })  # fmt: skip
    back = changed.by("directly")
    assert back.attributes == {"phases": 1, "dcu": 7, "gateway": "gw"}
    assert back.by("through the head-end").attributes == {"phases": 1, "plugin": "calin-api-v2", "relay_node": 7}


def test_a_way_is_replaced_and_forgotten() -> None:
    again = BOTH.with_way("directly", Route(name="through the head-end", adapter="other"))
    assert [route.adapter for route in again.routes] == ["other"]
    assert again.without_way("through the head-end") == DIRECT
    three = BOTH.with_way("directly", Route(name="by cable", adapter="iec62056"))
    assert three.without_way("by cable") == BOTH


words = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3) | st.sampled_from(["x", "y"]), max_size=4)


@given(words, words, st.lists(words, max_size=2), st.lists(st.integers(0, 3), max_size=8))
def test_any_walk_over_the_ways_ends_where_it_began(
    own: dict[str, object], other: dict[str, object], more: list[dict[str, object]], walk: list[int]
) -> None:
    start = Device(id="m", name="M", adapter="a", attributes=own)
    device = start
    for number, attributes in enumerate((other, *more)):
        device = device.with_way("0", device.way_of(Device(id="m", name="M", attributes=attributes), str(number + 1)))
    ways = sorted(device.ways)
    moved = device
    for step in walk:
        moved = moved.by(ways[step % len(ways)])
    back = moved.by("0")
    assert back.attributes == own
    assert {route.name for route in back.routes} == {*ways} - {"0"}
    assert moved.by("1").attributes == device.by("1").attributes
