"""Pictures of what a meter on a line shows: clock, phasors, status bits, detection, objects, and the port picker."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from app.model.interaction import Failure, Interaction
from app.model.reading import LinkState
from app.model.status import Status
from app.transports.serial_ports import PortInfo
from tests.ui.fakes import DirectRunner, FakeSecrets, FakeWorkbench
from tests.ui.log_fakes import START, MemoryReader, until
from tests.ui.meter_fakes import (
    METER,
    PLAIN,
    SET_CLOCK,
    answer,
    attribute_item,
    clock_item,
    clock_set_item,
    detection_result,
    line_bench,
    objects_item,
    phasor_rows,
)
from tests.ui.test_panel_screenshots import OpenLog, Shoot, open_log, quiet_app, shoot, theme
from tests.ui.test_readings_panel import pick, profile_result, readout_result
from ui.dialogs.confirm import confirm_command
from ui.dialogs.connection import ConnectionDialog
from ui.models.objects import place_at
from ui.panels.objects import ObjectsPanel
from ui.panels.readings import ReadingsPanel
from ui.theme import Theme
from ui.widgets import port_picker
from ui.widgets.port_picker import PortPicker, Ports

__all__ = ["open_log", "quiet_app", "shoot", "theme"]  # fixtures


class Panels:
    """Makes panels over a log of some items."""

    def __init__(self, theme: Theme, open_log: OpenLog, qtbot: QtBot) -> None:
        self._theme, self._open_log, self._qtbot = theme, open_log, qtbot

    def readings(self, *items: Interaction, chosen: int, bench: FakeWorkbench | None = None) -> ReadingsPanel:
        panel = ReadingsPanel(
            bench or line_bench(), self._open_log(MemoryReader(items)), self._theme, zone=START.tzinfo
        )
        panel.set_device(METER)
        panel.show()
        self._qtbot.waitUntil(until(lambda: panel.model.rowCount() == len(items)))
        pick(panel, chosen, self._qtbot)
        return panel

    def objects(
        self, *items: Interaction, device: str | None = METER, bench: FakeWorkbench | None = None
    ) -> ObjectsPanel:
        panel = ObjectsPanel(bench or line_bench(), self._open_log(MemoryReader(items)), self._theme, zone=START.tzinfo)
        panel.set_device(device)
        panel.show()
        self._qtbot.waitUntil(until(lambda: panel._ticket is None and not panel._is_stale))
        return panel


@pytest.fixture
def panels(theme: Theme, open_log: OpenLog, qtbot: QtBot) -> Panels:
    return Panels(theme, open_log, qtbot)


def flagged_profile() -> dict[str, Any]:
    result = profile_result(24, gap=(10, 12))
    for row, (status, flags) in zip(
        result["rows"],
        [("08", ["summer time"]), ("88", ["power down", "summer time"]), ("48", ["power up", "summer time"]),
         ("00", []), ("20", ["clock set"]), ("05", ["value disturbed", "fatal error"]), ("A0001234", [])],
        strict=False,
    ):  # fmt: skip
        row["status"], row["flags"] = status, flags
    return result


def test_status_bits(panels: Panels, shoot: Shoot) -> None:
    item = answer(1, "LOAD_PROFILE", flagged_profile())
    shoot(panels.readings(item, chosen=1), "readings-flags", 1180, 620)


def test_clock(panels: Panels, shoot: Shoot, theme: Theme) -> None:
    items = (clock_item(1, 88.0), clock_item(30, 96.4), clock_set_item(31, 96.6, -0.4), clock_item(60, 12.4))
    shoot(panels.readings(*items, chosen=60), "clock-off", 1180, 460)
    shoot(panels.readings(*items, chosen=31), "clock-set", 1180, 460)
    offline = line_bench()
    offline.set_link(METER, LinkState.FAULT, "The port /dev/ttyUSB0 is gone: plug the optical head in again.")
    far = (clock_item(1, 3800.0),)
    shoot(panels.readings(*far, chosen=1, bench=offline), "clock-offline-narrow-200", 560, 460, 2.0)
    waiting = answer(2, "SET_CLOCK", None)
    shoot(panels.readings(*far, waiting, chosen=2), "clock-waiting", 900, 360)
    panel = panels.readings(*items, chosen=60)
    bench = line_bench()
    dialog = confirm_command(
        panel,
        device=bench.device(METER),
        spec=SET_CLOCK,
        params={},
        old_value="2026-05-07 00:00:12, 12.4 s ahead",
        on_yes=lambda: None,
        theme=theme,
    )
    shoot(dialog, "clock-question", 620, 260)


def test_phasors(panels: Panels, shoot: Shoot) -> None:
    def readout(**angles: str) -> Interaction:
        rows = [*readout_result()["rows"], *phasor_rows(**angles)]
        return answer(1, "READOUT", readout_result(rows=rows))

    whole = panels.readings(readout(e1="119.5", e2="240.1", e4="32.0", e15="51.0", e26="-8.0"), chosen=1)
    whole.tabs.setCurrentWidget(whole.phasors)
    shoot(whole, "phasors", 1180, 520)
    whole.resize(600, 760)
    shoot(whole, "phasors-narrow-200", 600, 760, 2.0)
    some = panels.readings(readout(e4="4.0", e15="-178"), chosen=1)
    some.tabs.setCurrentWidget(some.phasors)
    shoot(some, "phasors-assumed", 1180, 520)
    left = panels.readings(readout(e1="240", e2="120", e4="0", e15="0", e26="0"), chosen=1)
    left.tabs.setCurrentWidget(left.phasors)
    shoot(left, "phasors-left-low", 760, 400)


def test_detection(panels: Panels, shoot: Shoot) -> None:
    items = (answer(1, "DETECT", detection_result()), answer(2, "DETECT", detection_result(is_found=False)))
    shoot(panels.readings(*items, chosen=1), "detection-found", 1180, 420)
    shoot(panels.readings(*items, chosen=2), "detection-nothing-narrow", 640, 420)


def test_objects(panels: Panels, shoot: Shoot) -> None:
    failed = Failure(code="DENIED", text="Meter 7 refused to read: the client may not see this attribute.", at=START)
    items = (
        objects_item(1),
        attribute_item(2),
        attribute_item(3, "1-0:1.8.0.255", "1532.071", "kWh"),
        attribute_item(4, "1-0:2.8.0.255", result=None, status=Status.FAILED, failure=failed),
    )
    whole = panels.objects(*items)
    whole.choose(place_at(3, "1-0:32.7.0.255", 2))
    shoot(whole, "objects", 1180, 560)
    bad = panels.objects(*items)
    bad.by.setCurrentIndex(1)
    bad.choose(place_at(3, "1-0:2.8.0.255", 2))
    shoot(bad, "objects-by-obis-failed", 1180, 560)
    narrow = panels.objects(*items)
    narrow.search.setText("volt")
    narrow.choose(place_at(3, "1-0:32.7.0.255", 2))
    shoot(narrow, "objects-narrow-200", 560, 640, 2.0)
    huge = panels.objects(objects_item(1, more=1500))
    huge.search.setText("1-1:1")
    shoot(huge, "objects-huge", 1180, 560)


def test_objects_without_a_list(panels: Panels, shoot: Shoot) -> None:
    shoot(panels.objects(device=None), "objects-nothing-chosen", 900, 300)
    shoot(panels.objects(), "objects-empty", 900, 300)
    shoot(panels.objects(device=PLAIN), "objects-none-here", 900, 300)
    offline = line_bench()
    offline.set_link(METER, LinkState.OFF)
    shoot(panels.objects(bench=offline), "objects-offline", 900, 300)
    shoot(panels.objects(answer(1, "READ_OBJECTS", None)), "objects-waiting", 900, 300)
    why = Failure(code="TIMEOUT", text="Meter 7 did not answer in 12 s. Seat the optical head again.", at=START)
    failed = answer(1, "READ_OBJECTS", None, status=Status.FAILED, failure=why)
    shoot(panels.objects(failed), "objects-failed", 900, 300)


def _found(ports: tuple[PortInfo, ...], kept: str) -> Ports:
    return Ports(ports, kept)


def _is_missing(picker: PortPicker) -> bool:
    return "not plugged in" in picker.currentText()


def test_port_picker(theme: Theme, shoot: Shoot, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    there = (
        PortInfo("/dev/ttyS0", "/dev/ttyS0", "/dev/ttyS0"),
        PortInfo("/dev/ttyUSB1", "CP2102 optical head  (10C4:EA60, 0001)  /dev/ttyUSB1", "usb:10C4:EA60:0001"),
    )
    for name, ports in (("picker", there), ("picker-none", ())):
        monkeypatch.setattr(port_picker, "find_ports", partial(_found, ports))
        bench = line_bench()
        dialog = ConnectionDialog(bench, theme, DirectRunner(), secrets=FakeSecrets(), device=bench.device(METER))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        editor = dialog.field("port").editor
        assert isinstance(editor, PortPicker)
        qtbot.waitUntil(partial(_is_missing, editor))
        shoot(dialog, f"connection-{name}", 900, 560)
        editor.showPopup()
        popup = editor.view().window()
        shoot(popup, f"connection-{name}-open", max(200, popup.width()), max(40, popup.height()))
        editor.hidePopup()
