"""The objects of a meter: the newest list of the log, groups and search, and attributes read from the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.errors import WorkbenchError
from app.model.interaction import Failure
from app.model.reading import LinkState
from app.model.records import DeviceRemoved
from app.model.status import Status
from tests.ui.fakes import FakeWorkbench
from tests.ui.log_fakes import START, MemoryReader, memory_log, until
from tests.ui.meter_fakes import (
    METER,
    PLAIN,
    answer,
    attribute_item,
    line_bench,
    objects_item,
    objects_result,
)
from ui.log_access import LogAccess
from ui.models.objects import (
    Attribute,
    Grouping,
    Place,
    grouped,
    is_object_list,
    objects_of,
    place_at,
    place_of,
    value_text,
)
from ui.panels.objects import ObjectsPanel
from ui.theme import Role, Theme, ThemeMode

VOLTAGE = place_at(3, "1-0:32.7.0.255", 2)
Open = Callable[..., ObjectsPanel]


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader([objects_item(1)])


@pytest.fixture
def bench() -> FakeWorkbench:
    return line_bench()


@pytest.fixture
def make(qapp: QApplication, qtbot: QtBot, reader: MemoryReader, bench: FakeWorkbench) -> Iterator[Open]:
    logs: list[LogAccess] = []

    def opened(device: str | None = METER, **more: Any) -> ObjectsPanel:
        log = memory_log(reader)
        logs.append(log)
        panel = ObjectsPanel(bench, log, Theme(qapp, ThemeMode.LIGHT), zone=UTC, **more)
        qtbot.addWidget(panel)
        panel.set_device(device)
        panel.show()
        qtbot.waitUntil(until(lambda: panel._ticket is None and not panel._is_stale))
        return panel

    yield opened
    for log in logs:
        log.close()


def heads(panel: ObjectsPanel) -> list[str]:
    found = (panel.tree.topLevelItem(n) for n in range(panel.tree.topLevelItemCount()))
    return [item.text(0) for item in found if item is not None and not item.isHidden()]


def cells(panel: ObjectsPanel, place: Place) -> list[str]:
    item = panel._items[place]
    return [item.text(column) for column in range(5)]


def submitted(bench: FakeWorkbench) -> list[tuple[Any, ...]]:
    return [call for call in bench.calls if call[0] == "submit"]


def test_the_newest_list_of_the_log_by_class_and_by_code(make: Open, reader: MemoryReader) -> None:
    reader.items = [objects_item(1, more=3), objects_item(4), answer(6, "READ_OBJECTS", None, status=Status.FAILED)]
    panel = make()
    assert panel.empty_text() == ""
    assert heads(panel) == ["1  Data  (1)", "3  Register  (3)", "7  Profile generic  (1)", "8  Clock  (1)",
                            "15  Association LN  (1)"]  # fmt: skip
    assert panel.found.text() == "7 objects, list of 2026-05-04 16:00 UTC+00:00"
    panel.by.setCurrentIndex(1)
    assert heads(panel) == [
        "0-0:1.*  Clock  (1)",
        "0-0:40.*  Association  (1)",
        "0-0:96.*  Service entries  (1)",
        "1-0:1.*  Active import  (1)",
        "1-0:2.*  Active export  (1)",
        "1-0:32.*  Voltage L1  (1)",
        "1-0:99.*  Profiles  (1)",
    ]


def test_a_fact_names_the_list_where_the_log_search_finds_none(
    make: Open, reader: MemoryReader, bench: FakeWorkbench
) -> None:
    reader.items = [replace(objects_item(7), command="RAW")]
    bench.learn(METER, {"objects_from": 7})
    assert len(make()._objects) == 7
    bench.learn(METER, {"objects_from": 9})
    assert "has not been read yet" in make().empty_text()
    bench.learn(METER, {"objects_from": True})
    assert "has not been read yet" in make().empty_text()


def test_search_opens_what_it_finds(make: Open) -> None:
    panel = make()
    panel.focus_search()
    panel.search.setText("volt regis")
    assert heads(panel) == ["3  Register  (3)"]
    head = panel.tree.topLevelItem(1)
    assert head is not None
    assert head.isExpanded()
    assert panel.found.text() == "1 of 7 objects"
    panel.search.setText("secret")
    assert heads(panel) == ["15  Association LN  (1)"], "attributes are looked through, too"
    panel.search.clear()
    assert len(heads(panel)) == 5
    assert not head.isExpanded()


def test_a_double_click_reads_and_the_value_comes_beside_it(make: Open, bench: FakeWorkbench) -> None:
    panel = make()
    assert panel.choose(VOLTAGE)
    assert not panel.choose(place_at(3, "9-9:9.9.9.255", 2))
    assert "Not read yet" in panel.state.text()
    panel.tree.itemActivated.emit(panel._items[VOLTAGE], 0)
    assert submitted(bench) == [
        ("submit", METER, "READ_ATTRIBUTE", {"class": 3, "obis": "1-0:32.7.0.255", "attribute": 2})
    ]
    panel.on_batch([bench.interactions[1]])
    assert cells(panel, VOLTAGE)[2] == "queued"
    panel.on_batch([attribute_item(2, "1.0.32.7.0.255")])  # the same code, written another way
    assert cells(panel, VOLTAGE)[2:] == ["231.4 V", "read", "2026-05-04 14:00:00"]
    assert panel.state.text().startswith("done, 2026-05-04 14:00:00")
    value = panel.value.topLevelItem(0)
    assert value is not None
    assert [value.text(n) for n in range(3)] == ["Value", "231.4", "V"]
    shown: list[int] = []
    panel.interactionActivated.connect(shown.append)
    panel.show_button.click()
    assert shown == [2]
    panel.on_batch([attribute_item(2, value="9", seq=1)])  # an older version, late
    assert cells(panel, VOLTAGE)[2] == "231.4 V"
    panel.by.setCurrentIndex(1)
    assert cells(panel, VOLTAGE)[2] == "231.4 V"
    assert panel._chosen_place() == VOLTAGE, "the choice is kept"


def test_values_read_earlier_come_from_the_log(make: Open, reader: MemoryReader) -> None:
    why = Failure(code="DENIED", text="Meter 7 refused: scope of access violated.", at=START)
    reader.items += [
        attribute_item(2),
        attribute_item(3, "1-0:1.8.0.255", result=None, status=Status.FAILED, failure=why),
        attribute_item(4, device=PLAIN),
    ]
    panel = make()
    assert cells(panel, VOLTAGE)[2] == "231.4 V"
    failed = place_at(3, "1-0:1.8.0.255", 2)
    assert cells(panel, failed)[2] == "failed"
    panel.choose(failed)
    assert "scope of access violated" in panel.state.text()
    assert panel._items[failed].toolTip(2) == why.text


def test_what_cannot_be_read_says_why(make: Open, bench: FakeWorkbench) -> None:
    panel = make()
    assert not panel.read_button.isEnabled()
    assert panel.reason.text() == "Choose an attribute to read it."
    secret = place_at(15, "0-0:40.0.0.255", 3)
    panel.choose(secret)
    assert "does not let this client read" in panel.reason.text()
    panel.tree.itemActivated.emit(panel._items[secret], 0)
    panel.tree.itemActivated.emit(panel.tree.topLevelItem(0), 0)
    assert submitted(bench) == []
    panel.choose(VOLTAGE)
    assert panel.read_button.isEnabled()
    bench.set_link(METER, LinkState.FAULT, "The adapter is not plugged in.")
    panel.on_batch([bench.state(METER)])
    assert not panel.read_button.isEnabled()
    assert panel.reason.text() == "Meter 7 is not connected. The adapter is not plugged in."
    assert not panel.list_button.isEnabled()


def test_what_the_door_refuses_is_told(make: Open, bench: FakeWorkbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def halted(*_args: object, **_more: object) -> int:
        raise WorkbenchError("The workspace cannot be written, so nothing is sent.")

    panel = make()
    monkeypatch.setattr(bench, "submit", halted)
    panel.choose(VOLTAGE)
    panel.read_button.click()
    assert "cannot be written" in panel.state.text()


def test_a_list_is_asked_for_and_comes(make: Open, reader: MemoryReader, bench: FakeWorkbench) -> None:
    reader.items.clear()
    panel = make()
    assert panel.empty_text() == "The object list of Meter 7 has not been read yet."
    panel.first_read.click()
    assert submitted(bench) == [("submit", METER, "READ_OBJECTS", {})]
    panel.on_batch([bench.interactions[1]])
    assert "is asked for: queued" in panel.empty_text()
    assert not panel.first_read.isEnabled()
    why = Failure(code="TIMEOUT", text="Meter 7 did not answer in 12 s.", at=START)
    panel.on_batch([answer(1, "READ_OBJECTS", None, status=Status.FAILED, failure=why)])
    assert panel.empty_text() == "The object list could not be read. Meter 7 did not answer in 12 s."
    assert panel.first_read.isEnabled()
    panel.on_batch([answer(2, "READ_OBJECTS", {"objects": []})])
    assert "told of no object" in panel.empty_text()
    panel.on_batch([objects_item(3)])
    assert panel.empty_text() == ""
    assert len(heads(panel)) == 5
    panel.on_batch([objects_item(2, more=9)])
    assert len(panel._objects) == 7, "an older list does not come back"


def test_empty_states_say_what_to_do(make: Open, reader: MemoryReader, bench: FakeWorkbench, qtbot: QtBot) -> None:
    panel = make(None)
    assert "Choose one in the tree" in panel.empty_text()
    assert panel.first_read.isHidden()
    panel.set_device(PLAIN)
    assert panel.empty_text() == "LEM 4711 has no object list. Meters that speak DLMS/COSEM have one."
    panel.set_device("gone")
    assert panel.device is None
    reader.items.clear()
    bench.set_link(METER, LinkState.OFF)
    panel.set_device(METER)
    qtbot.waitUntil(until(lambda: "has not been read yet" in panel.empty_text()))
    assert panel.empty_text().endswith("Meter 7 is not connected. Connect it first.")
    assert not panel.first_read.isEnabled()
    replay = make(is_live=False)
    assert "a recording" in replay.empty_text()
    reader.is_broken = True
    broken = make()
    assert "could not be read: disk I/O error" in broken.empty_text()


def test_the_log_is_asked_only_when_somebody_looks(make: Open, reader: MemoryReader, bench: FakeWorkbench) -> None:
    panel = make()
    panel.hide()
    asked = len(reader.asked)
    panel.set_device(PLAIN)
    panel.set_device(METER)
    panel.on_batch([attribute_item(2)])
    assert len(reader.asked) == asked
    renamed = replace(bench.device(METER), name="Meter seven")
    panel.show()
    panel.on_batch([renamed, DeviceRemoved(PLAIN)])
    assert panel.device == METER
    panel.on_batch([DeviceRemoved(METER)])
    assert panel.device is None


def test_a_large_list_is_shown(make: Open, reader: MemoryReader) -> None:
    reader.items = [objects_item(1, more=1500)]
    panel = make()
    panel.search.setText("1-1:1")
    assert panel.found.text() == "1,080 of 1,507 objects"


def test_another_theme_leaves_the_tree_as_it_is(make: Open, reader: MemoryReader) -> None:
    reader.items.append(attribute_item(2))
    panel = make()
    panel.choose(VOLTAGE)
    panel._theme.set_mode(ThemeMode.DARK)
    try:
        assert panel._chosen_place() == VOLTAGE
        assert panel._items[VOLTAGE].foreground(2).color() == panel._theme.colour(Role.TEXT)
    finally:
        panel._theme.set_mode(ThemeMode.LIGHT)


def test_narrow_the_value_goes_below(make: Open) -> None:
    panel = make()
    panel.resize(1200, 500)
    assert panel._split.orientation() is Qt.Orientation.Horizontal
    panel.resize(500, 700)
    assert panel._split.orientation() is Qt.Orientation.Vertical


def test_shapes() -> None:
    assert is_object_list(objects_result())
    assert not is_object_list({"objects": 3})
    assert not is_object_list(None)
    odd = {"objects": [3, {"class": "3", "obis": "1.8.0"}, {"class": 3}, {"class": 4, "obis": "x", "attributes": [1]}]}
    (one,) = objects_of(odd)
    assert (one.title, one.version, one.attributes) == ("4 without a known name", 0, ())
    assert [group.title for group in grouped([one], Grouping.OBIS)] == ["Other names"]
    gas = objects_of({"objects": [{"class": 3, "obis": "7-0:3.0.0.255"}, {"class": 3, "obis": "1-0:1.8.1.255"},
                                  {"class": 3, "obis": "1-0:13.7.0.255"}]})  # fmt: skip
    assert [group.title for group in grouped(gas, Grouping.OBIS)] == [
        "1-0:1.*  Active import",
        "1-0:13.*  Power factor",
        "7-0:3.*  Gas",
    ]
    assert Attribute(2, "value", "").is_readable
    assert Attribute(2, "value", "read write").is_readable
    assert not Attribute(2, "value", "write").is_readable
    assert not Attribute(2, "value", "no access").is_readable
    assert place_of(attribute_item(1, result=None)) == VOLTAGE
    assert place_of(answer(1, "READ_ATTRIBUTE", {"class": "x"})) is None
    assert place_at(1, "a name", 2) == (1, "a name", 2)
    assert place_of(objects_item(1)) is None
    assert value_text({"value": [1, 2]}) == "2 entries"
    assert value_text({"value": None}) == "–"
    assert value_text({"value": True}) == "yes"
