"""The tree: structure, values, ages, queues, and 5,000 devices."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.model.device import Device, NodeKind
from app.model.flow import IssueKind
from app.model.reading import DeviceState, LinkState, SampleSet
from app.model.records import DeviceRemoved
from app.model.status import Event
from tests.ui.fakes import (
    CURRENT,
    ENERGY,
    POWER,
    START,
    VOLTAGE,
    FakeWorkbench,
    busy,
    heard_and_silent,
    prepaid_site,
    site,
)
from ui.actions import Actions
from ui.models.device_tree import QUANTITY_MIME, Column, DeviceRole, DeviceTreeModel, natural
from ui.panels.devices import NAME_LEAST, DevicesPanel
from ui.theme import Role, Theme, ThemeMode


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


def feed(workbench: FakeWorkbench, model: DeviceTreeModel) -> None:
    def on_change(change: Any) -> None:
        if isinstance(change, SampleSet):
            model.on_samples([change])
        else:
            model.on_batch([change])

    workbench.feed.subscribe(on_change)


def shown(model: DeviceTreeModel, parent: QModelIndex = QModelIndex(), depth: int = 0) -> list[str]:
    rows = []
    for row in range(model.rowCount(parent)):
        index = model.index(row, 0, parent)
        cells = [str(model.index(row, c.value, parent).data() or "") for c in Column]
        rows.append("  " * depth + "|".join(cells))
        rows.extend(shown(model, index, depth + 1))
    return rows


def test_empty_and_full_models_keep_qts_rules(qtbot: QtBot, theme: Theme, qtmodeltester: ModelTester) -> None:
    workbench = FakeWorkbench()
    model = DeviceTreeModel(workbench, theme)
    qtmodeltester.check(model)  # type: ignore[no-untyped-call]
    feed(workbench, model)
    for device in site():
        workbench.save_device(device)
    busy(workbench)
    model.tell()
    workbench.save_device(replace(workbench.device("lem-1"), parent="grid-1"))
    workbench.save_device(replace(workbench.device("lem-1"), parent="", name="Alone"))
    workbench.save_device(replace(workbench.device("m-0124"), position=-1))
    workbench.remove_device("dcu-3")
    model.tell()
    assert shown(model)[3] == "Site North|empty|"
    assert [r.split("|")[0] for r in shown(model)] == [
        "Meter 0124",
        "Meter 0123",
        "  Energy imported",
        "Site North",
        "  Grid 1",
        "Alone",
        "  DC power",
        "  DC voltage",
        "  DC current",
    ]


def test_what_a_busy_site_shows(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    busy(workbench)
    assert shown(model) == [
        "Site North|3 of 4 online|",
        "  Grid 1|unknown|2 of 3",
        "    DCU 3|online|",
        "      Meter 0123|online, 1 wait|1532.07 kWh",
        "        Energy imported||1532.07 kWh",
        "      Meter 0124|fault|",
        "  LEM 4711|online|49.6 kW",
        "    DC power||49.6 kW",
        "    DC voltage||398.1 V",
        "    DC current||124.5 A",
    ]
    assert not model.index_of("m-0124").data(Qt.ItemDataRole.DecorationRole).isNull()
    assert "No answer since 11:42." in model.index_of("m-0124").data(Qt.ItemDataRole.ToolTipRole)


def test_grids_and_gateways_say_how_they_stand(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(prepaid_site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    icon, tip, ink = Qt.ItemDataRole.DecorationRole, Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.ForegroundRole

    def state(device: str) -> str:
        return str(model.index_of(device).siblingAtColumn(Column.STATE).data())

    assert state("grid-1") == "unknown"
    unknown = model.index_of("grid-1").data(icon).cacheKey()
    workbench.set_field_state("grid-1", is_up=False)
    assert state("grid-1") == "dark"
    dark = model.index_of("grid-1").data(icon).cacheKey()
    assert model.index_of("grid-1").siblingAtColumn(Column.STATE).data(ink) == theme.colour(Role.WARNING)
    assert "wait until it is back for 5 minutes" in model.index_of("grid-1").data(tip)
    workbench.fake_clock.move(3600)
    model.age()
    assert state("grid-1") == "dark", "a grid's state stands until the next word"
    workbench.set_field_state("grid-1", is_up=True)
    assert state("grid-1") == "lit"
    assert len({unknown, dark, model.index_of("grid-1").data(icon).cacheKey()}) == 3
    assert model.index_of("grid-1").siblingAtColumn(Column.VALUE).data() == "0 of 5"
    assert "lit, 0 of 5 online" in model.index_of("grid-1").data(tip)
    assert state("north") == "0 of 6 online", "a site has no state of its own"

    assert state("gw-1") == "unknown"
    workbench.learn("gw-1", {"is_online": True})
    assert state("gw-1") == "online"
    workbench.fake_clock.move(600)
    model.age()
    assert state("gw-1") == "online"
    workbench.fake_clock.move(1)
    model.age()
    assert state("gw-1") == "stale", "older than ten minutes it counts for nothing (D-06)"
    assert "counts as unknown" in model.index_of("gw-1").data(tip)
    workbench.set_field_state("gw-1", is_up=False)
    workbench.fake_clock.move(7200)
    model.age()
    assert state("gw-1") == "offline", "a person's word does not grow stale"
    assert "Switched off by a person" in model.index_of("gw-1").data(tip)


def test_a_gateway_with_a_link_of_its_own(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    state = model.index_of("dcu-3").siblingAtColumn(Column.STATE)
    workbench.set_link("dcu-3", LinkState.ONLINE)
    assert state.data() == "online", "nobody said anything yet: its link says more"
    workbench.learn("dcu-3", {"is_online": False})
    assert state.data() == "offline"
    workbench.learn("dcu-3", {"is_online": True})
    workbench.set_link("dcu-3", LinkState.FAULT)
    assert state.data() == "online, fault"
    workbench.submit("dcu-3", "READ_STATUS")
    assert state.data() == "online, fault, 1 wait"


def test_a_meter_behind_a_gateway_says_when_it_was_heard(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(prepaid_site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    heard_and_silent(workbench)

    def tells(device: str, role: int = Qt.ItemDataRole.DisplayRole.value) -> Any:
        return model.index_of(device).siblingAtColumn(Column.STATE).data(role)

    def icon(device: str) -> int:
        key: int = model.index_of(device).data(Qt.ItemDataRole.DecorationRole).cacheKey()
        return key

    assert (tells("p-1"), tells("p-1", DeviceRole.BRIEF)) == ("heard just now", "just now")
    assert (tells("p-2"), tells("p-2", DeviceRole.BRIEF)) == ("never heard", "never heard")
    assert tells("p-2", Qt.ItemDataRole.ForegroundRole) == theme.colour(Role.NEUTRAL)
    assert model.index_of("p-1").siblingAtColumn(Column.VALUE).data() == "24.99 kWh"
    assert tells("north") == "1 of 6 online", "who was never heard is not online, whatever its server says"
    workbench.fake_clock.move(180)
    model.age()
    assert (tells("p-1"), tells("p-1", DeviceRole.BRIEF)) == ("heard 3 min ago", "3 min ago")
    assert model.index_of("p-1").siblingAtColumn(Column.VALUE).data(Qt.ItemDataRole.ForegroundRole) is None
    is_heard = icon("p-1")
    workbench.fake_clock.move(2 * 3600)
    model.age()
    assert tells("p-1") == "heard 2 h ago, value 2 h old"
    workbench.fake_clock.move(24 * 3600)
    model.age()
    assert tells("p-1") == "silent 26 h, value 26 h old"
    assert tells("p-1", DeviceRole.BRIEF) == "silent 26 h"
    assert tells("p-1", Qt.ItemDataRole.ForegroundRole) == theme.colour(Role.WARNING)
    assert len({is_heard, icon("p-1"), icon("p-2")}) == 3
    assert tells("north") == "0 of 6 online"
    assert "silent 26 h" in model.index_of("p-1").data(DeviceRole.SEARCH)

    workbench.set_link("p-1", LinkState.FAULT, "The network server refuses the token.")
    assert tells("p-1") == "fault, silent 26 h, value 26 h old"
    assert tells("p-1", DeviceRole.BRIEF) == "fault"
    assert tells("p-1", Qt.ItemDataRole.ForegroundRole) == theme.colour(Role.BAD)
    workbench.set_link("p-1", LinkState.ONLINE)
    workbench.submit("p-1", "READ_VOLTAGE")
    assert (tells("p-1"), tells("p-1", DeviceRole.BRIEF)) == ("heard just now, 1 wait", "1 wait")
    assert tells("north") == "1 of 6 online"
    moved = replace(workbench.device("p-1"), adapter="fake-http")
    workbench.save_device(moved)
    assert tells("p-1") == "online, 1 wait", "a direct one says how its link is"
    assert tells("lem-1") == "off"


def test_brief_states(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    busy(workbench)
    workbench.fake_clock.move(180)
    model.age()

    def brief(device: str) -> str:
        return str(model.index_of(device).data(DeviceRole.BRIEF))

    assert [brief(d) for d in ("north", "grid-1", "m-0123", "m-0124", "lem-1")] == [
        "3 of 4 online",
        "unknown",
        "1 wait",
        "fault",
        "3 min",
    ]


@pytest.mark.parametrize("direction", [Qt.LayoutDirection.LeftToRight, Qt.LayoutDirection.RightToLeft])
def test_names_come_before_states(
    qtbot: QtBot, qapp: QApplication, theme: Theme, direction: Qt.LayoutDirection
) -> None:
    workbench = FakeWorkbench(prepaid_site())
    host = QWidget()
    qtbot.addWidget(host)
    panel = DevicesPanel(workbench, theme, Actions(host, host))  # type: ignore[arg-type]  # no verb is used
    qtbot.addWidget(panel)
    panel.setLayoutDirection(direction)
    panel.resize(330, 500)
    panel.show()
    feed(workbench, panel.model)
    busy(workbench)
    heard_and_silent(workbench)
    workbench.save_device(replace(workbench.device("p-1"), name="A meter with a long name, in the third house"))
    workbench.fake_clock.move(180)
    panel.model.age()
    panel.model.tell()
    tree, letter = panel.tree, panel.fontMetrics().horizontalAdvance("n")

    def name_width() -> int:
        """Of the deepest row, without its arrows."""
        index = panel._proxy.mapFromSource(panel.model.index_of("p-1"))
        return tree.visualRect(index).width()

    icon = 32  # with what is around it
    qtbot.waitUntil(lambda: name_width() >= NAME_LEAST * letter + icon - 8)
    assert tree.isColumnHidden(Column.VALUE), "the value is drawn beside the state"
    assert tree.columnWidth(Column.NAME) + tree.columnWidth(Column.STATE) == tree.viewport().width()
    narrow = tree.columnWidth(Column.STATE)
    panel.resize(800, 500)
    qtbot.waitUntil(lambda: tree.columnWidth(Column.STATE) > narrow)
    whole = tree.columnWidth(Column.STATE)
    assert whole == tree.sizeHintForColumn(Column.STATE)
    tree.header().resizeSection(Column.STATE, 300)
    panel.resize(700, 500)
    qtbot.wait(20)
    assert tree.columnWidth(Column.STATE) == 300, "a person's width stays"


def test_a_grid_whose_generation_is_not_managed_holds_nothing_back(qtbot: QtBot, theme: Theme) -> None:
    grid = Device(id="g", name="G", kind=NodeKind.GRID, attributes={"is_hps_on": False})
    model = DeviceTreeModel(FakeWorkbench([grid]), theme)
    assert model.index_of("g").siblingAtColumn(Column.STATE).data() == "dark"
    assert "this holds nothing back" in model.index_of("g").data(Qt.ItemDataRole.ToolTipRole)


def test_open_issues_stand_in_the_tip(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    before = workbench.raise_issue("m-0123", IssueKind.NO_CREDIT, "0.0 kWh since 09:14.")
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)

    def tip() -> str:
        return str(model.index_of("m-0123").data(Qt.ItemDataRole.ToolTipRole))

    assert "Open issue: no credit: 0.0 kWh since 09:14." in tip()
    workbench.raise_issue("m-0123", IssueKind.NO_COMMUNICATION)
    assert "Open issue: no communication" in tip()
    workbench.close_issue(before)
    assert "no credit" not in tip()


def test_a_tree_built_at_once_equals_one_built_by_changes(qtbot: QtBot, theme: Theme) -> None:
    late = FakeWorkbench()
    grown = DeviceTreeModel(late, theme)
    feed(late, grown)
    for device in reversed(site()):  # children before their parents
        late.save_device(device)
    built = DeviceTreeModel(FakeWorkbench(site()), theme)
    assert shown(grown) == shown(built)


def test_a_circle_of_parents_does_not_hang(qtbot: QtBot, theme: Theme) -> None:
    circle = [Device(id="a", name="A", parent="b"), Device(id="b", name="B", parent="a")]
    model = DeviceTreeModel(FakeWorkbench(circle), theme)
    assert len(shown(model)) == 2
    feed_in = DeviceTreeModel(FakeWorkbench(), theme)
    feed_in.on_batch([Device(id="s", name="S", kind=NodeKind.SITE, parent="s")])
    assert len(shown(feed_in)) == 1


def test_waiting_commands_are_counted_until_they_leave(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    first = workbench.submit("lem-1", "READ_STATUS")
    workbench.submit("lem-1", "READ_STATUS")
    state = model.index_of("lem-1").siblingAtColumn(Column.STATE)
    assert state.data() == "off, 2 wait"
    workbench.advance(first, Event.SEND)
    assert state.data() == "off, 1 wait"


def test_a_value_that_stays_away_is_dimmed_with_its_age(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    workbench.set_link("lem-1", LinkState.ONLINE)
    for _ in range(5):
        workbench.fake_clock.move(1)
        workbench.measure("lem-1", (POWER, "49.6"))
    value = model.index_of("lem-1").siblingAtColumn(Column.VALUE)
    state = model.index_of("lem-1").siblingAtColumn(Column.STATE)
    workbench.fake_clock.move(9)
    model.age()
    assert value.data() == "49.6 kW"
    assert value.data(Qt.ItemDataRole.ForegroundRole) is None
    workbench.fake_clock.move(6)
    model.age()
    assert (value.data(), state.data()) == ("49.6 kW", "online, 15 s old")
    assert value.data(Qt.ItemDataRole.ForegroundRole) == theme.colour(Role.DIMMED)
    workbench.fake_clock.move(300)
    model.age()
    assert state.data() == "online, 5 min old"
    workbench.measure("lem-1", (POWER, "50.1"))
    assert (value.data(), state.data()) == ("50.1 kW", "online")
    workbench.set_link("lem-1", LinkState.FAULT)
    workbench.fake_clock.move(2)
    model.age()
    assert state.data() == "fault, 2 s old", "when the link is lost a value is old at once"


def test_a_slow_meter_is_not_old_before_its_time(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    workbench.set_link("m-0123", LinkState.ONLINE)
    for _ in range(3):
        workbench.fake_clock.move(900)
        workbench.measure("m-0123", (ENERGY, "1.0"))
    workbench.fake_clock.move(1800)
    model.age()
    assert model.index_of("m-0123").siblingAtColumn(Column.VALUE).data() == "1.0 kWh"


def test_dragging_a_quantity_or_a_meter(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    workbench.measure("lem-1", (CURRENT, "124.5"), (VOLTAGE, "398.1"), (POWER, "49.6"))
    meter = model.index_of("lem-1")
    voltage = model.index(1, 0, meter)
    assert model.flags(voltage) & Qt.ItemFlag.ItemIsDragEnabled
    assert not model.flags(model.index_of("north")) & Qt.ItemFlag.ItemIsDragEnabled
    dragged = bytes(model.mimeData([voltage]).data(QUANTITY_MIME).data())
    assert json.loads(dragged) == {"device": "lem-1", "quantity": "voltage", "unit": "V", "title": "DC voltage"}
    assert json.loads(bytes(model.mimeData([meter]).data(QUANTITY_MIME).data()))["quantity"] == "power"
    assert model.quantities("lem-1") == (POWER, VOLTAGE, CURRENT)


def test_names_are_ordered_as_people_count() -> None:
    assert sorted(["Meter 10", "meter 9", "Alpha", "meter 9b"], key=natural) == [
        "Alpha",
        "meter 9",
        "meter 9b",
        "Meter 10",
    ]


def test_changes_are_told_as_one_range_for_each_parent(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    model = DeviceTreeModel(workbench, theme)
    feed(workbench, model)
    busy(workbench)
    model.tell()
    told: list[tuple[int, int]] = []
    model.dataChanged.connect(lambda first, last: told.append((first.row(), last.row())))
    for _ in range(100):
        workbench.measure("m-0123", (ENERGY, "1.0"))
        workbench.measure("m-0124", (ENERGY, "1.0"))
    model.tell()
    assert sorted(told) == [(0, 0), (0, 0), (0, 1)]
    told.clear()
    model.tell()
    assert told == []


def test_rows_that_are_closed_cost_the_view_nothing(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    host = QWidget()
    qtbot.addWidget(host)
    panel = DevicesPanel(workbench, theme, Actions(host, host))  # type: ignore[arg-type]  # no verb is used
    qtbot.addWidget(panel)
    feed(workbench, panel.model)
    busy(workbench)
    panel.model.tell()
    told: list[str] = []
    panel.model.dataChanged.connect(lambda first, _last: told.append(str(first.data())))

    def change() -> list[str]:
        workbench.measure("m-0123", (ENERGY, "2.0"))
        panel.model.tell()
        found = sorted(told)
        told.clear()
        return found

    assert change() == ["Meter 0123"]
    panel.toggle("m-0123")
    assert change() == ["Energy imported", "Meter 0123"]
    panel.toggle("m-0123")
    panel.search.setText("energy")
    assert change() == ["Energy imported", "Meter 0123"]


def test_five_thousand_devices_stay_fluid(qtbot: QtBot, theme: Theme) -> None:
    devices = [Device(id="s", name="Site", kind=NodeKind.SITE)]
    devices += [Device(id=f"g{n}", name=f"DCU {n}", kind=NodeKind.GATEWAY, parent="s") for n in range(50)]
    devices += [
        Device(id=f"m{n}", name=f"Meter {n}", parent=f"g{n % 50}", adapter="fake-http", serial=str(n))
        for n in range(5000)
    ]
    workbench = FakeWorkbench(devices)
    model = DeviceTreeModel(workbench, theme)
    told: list[int] = []
    resets: list[bool] = []
    model.dataChanged.connect(lambda first, last: told.append(last.row() - first.row() + 1))
    model.modelReset.connect(lambda: resets.append(True))
    first = [SampleSet(device=f"m{n}", received=START, values=((POWER, Decimal("1")),)) for n in range(5000)]
    model.on_samples(first)
    later = START + timedelta(seconds=1)
    model.tell()
    told.clear()
    model.on_samples([replace(s, received=later) for s in first])
    model.tell()
    assert len(told) <= 3 * 5000 + 100, "a round of samples repaints each row a bounded number of times"
    told.clear()
    model.on_batch([DeviceState(device=f"m{n}", link=LinkState.ONLINE) for n in range(5000)])
    model.tell()
    assert len(told) <= 3 * 5000 + 100
    model.age()
    assert resets == [], "nothing is rebuilt for a sample or a state"
    model.on_batch([DeviceRemoved("g7")])
    assert model.device_count == 5050
    assert model.index_of("s").siblingAtColumn(Column.STATE).data() == "4900 of 4900 online"
