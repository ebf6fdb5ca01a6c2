"""The search of the device tree: plain words, the filter language, and choosing what matches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.errors import FilterError
from app.model.device import Device, NodeKind
from app.model.reading import LinkState
from tests.ui.fakes import START, FakeWorkbench, busy, site
from ui.actions import Actions
from ui.models.device_tree import Column
from ui.panels.devices import DevicesPanel, search_of
from ui.theme import Theme, ThemeMode


class Host(QWidget):
    """A window that has the actions."""


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode(request.param))


@pytest.fixture
def bench(qtbot: QtBot, qapp: QApplication) -> tuple[DevicesPanel, FakeWorkbench]:
    return make(qtbot, Theme(qapp, ThemeMode.LIGHT))


def make(qtbot: QtBot, theme: Theme) -> tuple[DevicesPanel, FakeWorkbench]:
    workbench = FakeWorkbench(site())
    host = Host()
    qtbot.addWidget(host)
    panel = DevicesPanel(workbench, theme, Actions(host, host))  # type: ignore[arg-type]  # no verb is used
    qtbot.addWidget(panel)
    workbench.feed.subscribe(lambda change: panel.on_batch([change]))
    busy(workbench)
    panel.model.tell()
    panel.resize(420, 500)
    panel.show()
    return panel, workbench


def rows(panel: DevicesPanel) -> list[str]:
    """Names of the devices that are shown, from top to bottom; groups too."""
    model = panel.tree.model()

    def below(parent: QModelIndex) -> list[str]:
        found: list[str] = []
        for row in range(model.rowCount(parent)):
            index = model.index(row, Column.NAME, parent)
            found += [str(index.data()), *below(index)]
        return found

    return below(QModelIndex())


def devices_shown(panel: DevicesPanel) -> set[str]:
    known = {device.name for device in site()}
    return known & set(rows(panel))


def test_plain_words_are_looked_for_anywhere(bench: tuple[DevicesPanel, FakeWorkbench]) -> None:
    panel, _workbench = bench
    panel.search.setText("eter 01")
    assert devices_shown(panel) == {"Site North", "Grid 1", "DCU 3", "Meter 0123", "Meter 0124"}
    panel.search.setText("0124 meter")  # nowhere side by side: both words, wherever they stand
    assert devices_shown(panel) == {"Site North", "Grid 1", "DCU 3", "Meter 0124"}
    panel.search.setText("")
    assert len(devices_shown(panel)) == len(site())


def test_the_filter_language(bench: tuple[DevicesPanel, FakeWorkbench]) -> None:
    panel, workbench = bench
    panel.search.setText("kind:meter not link:online")
    assert devices_shown(panel) == {"Site North", "Grid 1", "DCU 3", "Meter 0124"}
    workbench.set_link("m-0123", LinkState.FAULT, "The cable was pulled.")
    panel.model.tell()
    assert "Meter 0123" in devices_shown(panel)
    panel.search.setText("grid:grid-1 meter")
    assert "LEM 4711" not in devices_shown(panel)
    assert "Meter 0123" in devices_shown(panel)


def test_a_new_device_is_judged_too(bench: tuple[DevicesPanel, FakeWorkbench]) -> None:
    panel, workbench = bench
    panel.search.setText("name:New*")
    assert panel.tree.model().rowCount() == 0
    workbench.save_device(replace(workbench.device("m-0124"), id="fresh", name="New one"))
    assert "New one" in rows(panel)
    workbench.save_device(replace(workbench.device("fresh"), name="Old one"))
    panel.model.tell()
    assert "Old one" not in rows(panel)


def test_a_fault_is_underlined_after_a_while(bench: tuple[DevicesPanel, FakeWorkbench], qtbot: QtBot) -> None:
    panel, _workbench = bench
    panel.search.setText("kind:meter")
    before = rows(panel)
    panel.search.setText("kind:meter link:gone")
    assert rows(panel) == before
    assert not panel.message.isVisible()
    qtbot.waitUntil(panel.message.isVisible)
    assert panel.search.wrong_at() == len("kind:meter link:")
    assert "online" in panel.message.text()
    panel.search.setText("kind:meter link:online")
    assert not panel.message.isVisible()
    assert panel.search.wrong_at() == -1


def test_a_text_with_a_colon_that_stands_there_is_no_fault(qtbot: QtBot, qapp: QApplication) -> None:
    panel, workbench = make(qtbot, Theme(qapp, ThemeMode.LIGHT))
    address = Device(id="m-9", name="Meter ab:cd:ef", kind=NodeKind.METER, adapter="fake-http")
    workbench.save_device(address)
    panel.search.setText("ab:cd")
    assert "Meter ab:cd:ef" in rows(panel)
    with pytest.raises(FilterError):
        search_of("ab:cd", START)


def test_completion(bench: tuple[DevicesPanel, FakeWorkbench]) -> None:
    panel, _workbench = bench
    panel.search.setText("link:f")
    assert panel.search.completions() == ["link:fault"]
    panel.search.setText("grid:")
    assert panel.search.completions() == ["grid:grid-1"]
    panel.search.setText("li")
    assert "link:" in panel.search.completions()
    panel.search.take("link:")
    assert panel.search.text() == "link:"


def test_all_that_matches_is_chosen_at_once(bench: tuple[DevicesPanel, FakeWorkbench], qtbot: QtBot) -> None:
    panel, _workbench = bench
    assert not panel.found.isVisible()
    panel.search.setText("kind:meter")
    assert panel.count.text() == "3 of 4 devices"
    with qtbot.waitSignal(panel.devicesChosen) as told:
        panel.select_all.click()
    wanted = ("m-0123", "m-0124", "lem-1")
    assert panel.selected_devices() == wanted
    assert told.args == [wanted]
    assert panel.selected_device() == "m-0123"
    panel.select_device("lem-1")
    assert panel.selected_devices() == ("lem-1",)


def test_return_goes_to_the_first_that_matches_by_itself(
    bench: tuple[DevicesPanel, FakeWorkbench], qtbot: QtBot
) -> None:
    panel, _workbench = bench
    panel.search.setText("link:fault")
    QTest.keyClick(panel.search, Qt.Key.Key_Return)
    assert panel.selected_device() == "m-0124"


def test_pictures(qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    theme.install()
    panel, _workbench = make(qtbot, theme)
    panel.search.setText("kind:meter link:online")
    panel.select_matching()
    qtbot.wait(300)  # the tree tells its view four times a second
    assert panel.grab().save(str(artifacts / f"devices-filter-{theme.mode.value}.png"))
    panel.search.setText("kind:meter link:gone")
    qtbot.waitUntil(panel.message.isVisible)
    assert panel.grab().save(str(artifacts / f"devices-filter-fault-{theme.mode.value}.png"))
