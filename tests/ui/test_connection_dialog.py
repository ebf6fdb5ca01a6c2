"""The connection dialog: built from the adapter's form, errors under the fields, a test that can be stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QLineEdit
from pytestqt.qtbot import QtBot

from app.errors import ConfigError, LinkError, LinkReason
from app.model.device import Device, NodeKind
from app.transports.serial_ports import PortInfo
from tests.ui.fakes import REFUSED, DirectRunner, FakeSecrets, FakeWorkbench, site
from tests.ui.meter_fakes import METER, line_bench
from ui.dialogs.connection import ConnectionDialog
from ui.theme import Theme, ThemeMode
from ui.widgets import port_picker
from ui.widgets.port_picker import PortPicker


class NoKeyring(FakeSecrets):
    def set(self, name: str, value: str) -> None:
        raise ConfigError("This computer has no usable keyring. Keep the secret for this session only.")


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


def make(
    qtbot: QtBot, theme: Theme, workbench: FakeWorkbench, secrets: FakeSecrets | None = None, **more: Any
) -> ConnectionDialog:
    dialog = ConnectionDialog(workbench, theme, DirectRunner(), secrets=secrets or FakeSecrets(), **more)
    keep(qtbot, dialog)
    return dialog


def keep(qtbot: QtBot, dialog: ConnectionDialog) -> None:
    """Show it, and leave its end to the test."""
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.addWidget(dialog)
    dialog.show()


def type_into(dialog: ConnectionDialog, qtbot: QtBot, text: str, *, field: str = "", basic: str = "") -> None:
    editor = (dialog.field(field) if field else dialog.basic(basic)).editor
    assert isinstance(editor, QLineEdit)
    editor.clear()
    qtbot.keyClicks(editor, text)  # type: ignore[no-untyped-call]


def saved_by(workbench: FakeWorkbench) -> list[Device]:
    return [call[1] for call in workbench.calls if call[0] == "save_device"]


def test_a_fresh_form_accuses_nobody_and_says_what_is_needed(qtbot: QtBot, theme: Theme) -> None:
    dialog = make(qtbot, theme, FakeWorkbench())
    assert not dialog.save.isEnabled()
    assert "Name" in dialog.missing.text()
    assert "Address" in dialog.missing.text()
    for name in ("address", "port", "period"):
        assert not dialog.field(name).error.isVisible()


def test_saving_a_new_meter(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    dialog = make(qtbot, theme, workbench, parent_hint="lem-1")
    type_into(dialog, qtbot, "LEM 4711", basic="name")
    assert dialog.basic("id").raw() == "lem-4711"
    type_into(dialog, qtbot, "192.168.1.9", field="address")
    assert dialog.save.isEnabled()
    assert dialog.save.text() == "Save LEM 4711"
    with qtbot.waitSignal(dialog.saved, timeout=1000):
        dialog.save.click()
    (saved,) = saved_by(workbench)
    assert saved.id == "lem-4711"
    assert saved.adapter == "fake-http"
    assert saved.parent == "north", "beside the device that was chosen"
    assert saved.kind is NodeKind.METER
    assert saved.settings == {
        "address": "192.168.1.9",
        "port": 80,
        "period": "1",
        "scheme": "http",
        "check": True,
    }, "as JSON keeps it"


def test_errors_stand_under_their_fields(qtbot: QtBot, theme: Theme) -> None:
    dialog = make(qtbot, theme, FakeWorkbench(site()))
    type_into(dialog, qtbot, "99999", field="port")
    type_into(dialog, qtbot, "lem-1", basic="id")
    assert not dialog.show_errors()
    assert "65535" in dialog.field("port").error.text()
    assert dialog.field("port").error.isVisible()
    assert "already the id of LEM 4711" in dialog.basic("id").error.text()
    assert not dialog.save.isEnabled()


def test_a_test_says_what_was_found(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench()
    dialog = make(qtbot, theme, workbench)
    type_into(dialog, qtbot, "meter.local", field="address")
    type_into(dialog, qtbot, "secret", field="password")
    dialog.test.click()
    assert dialog.result_box.sentences.text() == "The meter answered in 12 ms.\nSerial number 4711."
    assert workbench.calls[-1][2]["password"] == "secret", "a test needs the words themselves"
    workbench.probe_answer = REFUSED
    dialog.test.click()
    assert "refused the connection" in dialog.result_box.sentences.text()
    type_into(dialog, qtbot, "other.local", field="address")
    assert not dialog.result_box.isVisible(), "the result spoke of another address"


async def test_a_test_can_be_stopped(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    workbench.probe_gate = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:

        def spawn(work: Coroutine[Any, Any, None]) -> None:
            tasks.append(group.create_task(work))

        dialog = ConnectionDialog(workbench, theme, spawn, device=workbench.device("lem-1"))
        keep(qtbot, dialog)
        dialog.test.click()
        assert dialog.result_box.stop.isVisible()
        assert not dialog.test.isEnabled()
        await asyncio.sleep(0)
        dialog.result_box.stop.click()
        assert dialog.result_box.sentences.text() == "The test was stopped."
        assert dialog.test.isEnabled()
        dialog.test.click()
        await asyncio.sleep(0)
        dialog.reject()
    assert [task.cancelled() for task in tasks] == [True, True], "closing stops the test, too"


async def test_a_test_stopped_before_it_began(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    async with asyncio.TaskGroup() as group:
        dialog = ConnectionDialog(workbench, theme, group.create_task, device=workbench.device("lem-1"))
        keep(qtbot, dialog)
        dialog.test.click()
        dialog.result_box.stop.click()
        await asyncio.sleep(0.01)
        assert dialog.result_box.sentences.text() == "The test was stopped."


@pytest.mark.parametrize("only_session", [False, True])
def test_secrets_go_to_the_keyring_or_stay_in_the_session(qtbot: QtBot, theme: Theme, only_session: bool) -> None:
    workbench, secrets = FakeWorkbench(), FakeSecrets()
    dialog = make(qtbot, theme, workbench, secrets)
    type_into(dialog, qtbot, "Meter", basic="name")
    type_into(dialog, qtbot, "meter.local", field="address")
    type_into(dialog, qtbot, "s3cret", field="password")
    dialog.session_only.setChecked(only_session)
    dialog.save.click()
    (saved,) = saved_by(workbench)
    assert saved.settings["password"] == "keyring:meter.password"
    assert "s3cret" not in repr(saved)
    kept = {"meter.password": "s3cret"}
    assert (secrets.kept, secrets.session) == (({}, kept) if only_session else (kept, {}))


def test_a_secret_can_be_kept_as_a_hash(qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch) -> None:
    workbench, secrets = FakeWorkbench(), FakeSecrets()
    dialog = make(qtbot, theme, workbench, secrets)
    field = next(one for one in dialog._fields if one.spec.name == "password")
    monkeypatch.setattr(field, "spec", replace(field.spec, kept_as=lambda words: f"hash of {len(words)}"))
    type_into(dialog, qtbot, "Meter", basic="name")
    type_into(dialog, qtbot, "meter.local", field="address")
    type_into(dialog, qtbot, "s3cret", field="password")
    dialog.save.click()
    assert saved_by(workbench)[0].settings["password"] == "keyring:meter.password"
    assert secrets.kept == {"meter.password": "hash of 6"}


def test_fields_are_asked_for_only_where_they_mean_something(
    qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    workbench = FakeWorkbench()
    dialog = make(qtbot, theme, workbench, FakeSecrets())
    address = next(one for one in dialog._fields if one.spec.name == "address")
    monkeypatch.setattr(address, "spec", replace(address.spec, only_for={"password": ("shown",)}))
    type_into(dialog, qtbot, "Meter", basic="name")
    type_into(dialog, qtbot, "s3cret", field="password")
    assert address.isHidden()
    assert dialog.save.isEnabled()  # what is missing there is not missed
    type_into(dialog, qtbot, "shown", field="password")
    assert not address.isHidden()
    assert not dialog.save.isEnabled()


def test_without_a_keyring_nothing_is_saved_and_the_reason_is_said(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench()
    dialog = make(qtbot, theme, workbench, NoKeyring())
    type_into(dialog, qtbot, "Meter", basic="name")
    type_into(dialog, qtbot, "meter.local", field="address")
    type_into(dialog, qtbot, "s3cret", field="password")
    dialog.save.click()
    assert saved_by(workbench) == []
    assert "no usable keyring" in dialog.result_box.sentences.text()
    dialog.session_only.setChecked(True)
    dialog.save.click()
    assert len(saved_by(workbench)) == 1


def test_editing_keeps_the_id_and_the_kept_secret(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench(site())
    dialog = make(qtbot, theme, workbench, device=workbench.device("dcu-3"))
    assert not dialog.basic("id").editor.isEnabled()
    assert dialog.field("token").raw() is None
    assert "kept already" in dialog.field("token").hint.text()
    type_into(dialog, qtbot, "10.0.0.8", field="server")
    dialog.save.click()
    (saved,) = saved_by(workbench)
    assert saved.id == "dcu-3"
    assert saved.parent == "grid-1"
    assert saved.kind is NodeKind.GATEWAY
    assert saved.settings["server"] == "10.0.0.8"
    assert saved.settings["token"] == "keyring:dcu-3.token"


def test_a_site_has_no_connection(qtbot: QtBot, theme: Theme) -> None:
    workbench = FakeWorkbench()
    dialog = make(qtbot, theme, workbench)
    dialog.choose_adapter("")
    assert not dialog.test.isVisible()
    type_into(dialog, qtbot, "Site South", basic="name")
    dialog.save.click()
    (saved,) = saved_by(workbench)
    assert saved.adapter == ""
    assert saved.kind is NodeKind.SITE


def test_what_was_typed_survives_a_look_at_another_kind(qtbot: QtBot, theme: Theme) -> None:
    dialog = make(qtbot, theme, FakeWorkbench())
    type_into(dialog, qtbot, "meter.local", field="address")
    dialog.choose_adapter("fake-fleet")
    dialog.choose_adapter("fake-http")
    assert dialog.field("address").raw() == "meter.local"


def test_every_control_has_a_name(qtbot: QtBot, theme: Theme) -> None:
    dialog = make(qtbot, theme, FakeWorkbench(site()))
    for editor in dialog.findChildren(QLineEdit):
        assert editor.accessibleName(), editor.objectName()


# ---------------------------------------------------------------- ports

HEAD = PortInfo("/dev/ttyUSB0", "CP2102 optical head  (10C4:EA60, 0001)  /dev/ttyUSB0", "usb:10C4:EA60:0001")
FIXED = PortInfo("/dev/ttyS0", "/dev/ttyS0", "/dev/ttyS0")
KEPT = "usb:0403:6001:A50285BI"  # of the meter in ``line_bench``


class Ports:
    """The ports of a computer; ``gate`` holds its answer back as a slow driver does."""

    def __init__(self, *ports: PortInfo, plugged_as: str = "", fault: str = "") -> None:
        self.ports, self.plugged_as, self.fault = ports, plugged_as, fault
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.threads: set[int] = set()

    def __call__(self, kept: str) -> port_picker.Ports:
        self.asked.append(kept)
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        return port_picker.Ports(self.ports, kept, self.plugged_as, self.fault)


def port_dialog(
    qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch, ports: Ports, *, is_new: bool = False
) -> tuple[FakeWorkbench, ConnectionDialog, PortPicker]:
    monkeypatch.setattr(port_picker, "find_ports", ports)
    bench = line_bench()
    dialog = make(qtbot, theme, bench, device=None if is_new else bench.device(METER))
    if is_new:
        dialog.choose_adapter("fake-line")
    picker = dialog.field("port").editor
    assert isinstance(picker, PortPicker)
    return bench, dialog, picker


def told(picker: PortPicker) -> list[str]:
    return [picker.itemText(at) for at in range(picker.count())]


def test_a_kept_adapter_that_is_not_plugged_in_is_shown_as_such(
    qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, dialog, picker = port_dialog(qtbot, theme, monkeypatch, Ports(FIXED, HEAD))
    qtbot.waitUntil(lambda: "not plugged in" in picker.currentText())
    assert picker.currentText() == f"{KEPT}  (not plugged in)"
    assert told(picker) == [FIXED.title, HEAD.title, f"{KEPT}  (not plugged in)"]
    assert dialog.field("port").raw() == KEPT
    dialog.save.click()
    assert saved_by(bench)[0].settings == {"port": KEPT}


def test_ports_are_shown_by_title_and_kept_by_address(
    qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = Ports(FIXED, HEAD, plugged_as="/dev/ttyUSB7")
    bench, dialog, picker = port_dialog(qtbot, theme, monkeypatch, ports)
    qtbot.waitUntil(lambda: picker.currentText() == f"{KEPT}  (now /dev/ttyUSB7)")
    edited: list[int] = []
    dialog.field("port").edited.connect(lambda: edited.append(1))
    picker.setCurrentIndex(1)
    picker.activated.emit(1)
    assert edited == [1]
    assert picker.currentText() == HEAD.title
    assert dialog.field("port").raw() == HEAD.address
    dialog.save.click()
    assert saved_by(bench)[0].settings == {"port": HEAD.address}
    assert threading.get_ident() not in ports.threads, "asked in a thread of its own"


def test_a_slow_system_does_not_hold_the_form(qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = Ports(FIXED)
    ports.gate.clear()
    _bench, dialog, picker = port_dialog(qtbot, theme, monkeypatch, ports, is_new=True)
    assert told(picker) == ["Looking for ports…"]
    assert picker.currentText() == ""
    assert dialog.field("port").raw() is None
    assert "rfc2217://" in picker.lineEdit().placeholderText()  # type: ignore[union-attr]
    qtbot.keyClicks(picker.lineEdit(), "socket://192.0.2.7:4059")  # type: ignore[no-untyped-call]
    assert dialog.field("port").raw() == "socket://192.0.2.7:4059"
    ports.gate.set()
    qtbot.waitUntil(lambda: told(picker) == [FIXED.title])
    assert picker.currentText() == "socket://192.0.2.7:4059", "what was typed stays"
    assert dialog.field("port").raw() == "socket://192.0.2.7:4059"


def test_an_address_set_while_the_system_is_asked_is_asked_for_too(
    qtbot: QtBot, qapp: QApplication, theme: Theme
) -> None:
    ports = Ports(FIXED, plugged_as="/dev/ttyUSB7")
    ports.gate.clear()
    picker = PortPicker(ports)
    qtbot.addWidget(picker)
    picker.set_address(KEPT)
    assert picker.address() == KEPT
    ports.gate.set()
    qtbot.waitUntil(lambda: picker.currentText() == f"{KEPT}  (now /dev/ttyUSB7)")
    assert ports.asked == ["", KEPT]


def test_opening_the_list_asks_for_the_ports_of_now(qtbot: QtBot, qapp: QApplication) -> None:
    ports = Ports(fault="The system could not list its serial ports: busy. Try again.")
    picker = PortPicker(ports)
    qtbot.addWidget(picker)
    picker.show()
    qtbot.waitUntil(lambda: told(picker) == [ports.fault])
    assert picker.address() == "", "a sentence is no address"
    ports.ports, ports.fault = (), ""
    picker.showPopup()
    qtbot.waitUntil(lambda: told(picker) == ["No serial port is connected to this computer."])
    picker.hidePopup()
    ports.ports = (HEAD, FIXED)
    with qtbot.waitSignal(picker.found):
        picker.showPopup()
    assert told(picker) == [HEAD.title, FIXED.title]
    assert picker.view().isVisible()
    picker.hidePopup()
    assert picker.address() == "", "nothing is chosen for the person"


def test_the_system_is_asked_for_its_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_picker, "list_ports", lambda: (FIXED, HEAD))

    def gone(_address: str) -> str:
        raise LinkError("The USB adapter is not connected. Plug it in.", LinkReason.UNREACHABLE)

    monkeypatch.setattr(port_picker, "resolve", gone)
    assert port_picker.find_ports(KEPT) == port_picker.Ports((FIXED, HEAD), KEPT)
    assert port_picker.find_ports("/dev/ttyS0").plugged_as == ""
    monkeypatch.setattr(port_picker, "resolve", lambda address: f"port of {address}")
    assert port_picker.find_ports(KEPT).plugged_as == f"port of {KEPT}"

    def broken() -> tuple[PortInfo, ...]:
        raise LinkError("The system could not list its serial ports: busy. Try again.", LinkReason.BROKEN)

    monkeypatch.setattr(port_picker, "list_ports", broken)
    assert "busy" in port_picker.find_ports(KEPT).fault
