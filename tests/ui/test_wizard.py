"""The connection wizard on the real dialog: real searches against simulators over ports and sockets, a real workbench,
tested and saved; wrong credentials, stopping, leaving, a narrow window, and pictures of every page."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage, QPainter
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QCheckBox, QComboBox, QLineEdit, QPlainTextEdit, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.adapters.iec62056 import Iec62056, Pace
from app.adapters.registry import Registry
from app.composition import open_session, running
from app.errors import ConfigError
from app.finding.kinds import KINDS
from app.finding.search import Candidate, Outcome, Tried
from app.model.device import Device, NodeKind
from app.model.reading import LinkState
from app.ports import AdapterType
from app.protocols.iec62056_session import Timing
from app.simulators.aviora import AvioraConfig, AvioraGatewaySimulator
from app.simulators.chirpstack import ChirpStackConfig, ChirpStackSimulator
from app.simulators.ems import EdgeConfig, EmsEdgeSimulator, device_ids
from app.simulators.iec62056 import Iec62056Meter
from app.simulators.iec62056 import MeterConfig as IecConfig
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from app.transports.own_addresses import OwnAddress
from app.workbench import Workbench
from tests.ui.fakes import DirectRunner, FakeSecrets, FakeWorkbench
from ui.event_loop import run
from ui.theme import Theme, ThemeMode
from ui.widgets import port_picker
from ui.wizard import where as where_module
from ui.wizard.pictures import paint_picture
from ui.wizard.qr import QUIET, QrView
from ui.wizard.window import ByHand, ConnectionWizard

_TAB: Final = Qt.FocusPolicy.TabFocus
HOST: Final = "127.0.0.1"
DEADLINE_S: Final = 25.0
LOOK_S: Final = 0.01
TOKEN: Final = "tok-9c1f70be22"
BRIEF = Timing(reaction_min_s=0.005, reaction_max_s=0.1, margin_s=0.05, gap_s=0.1, repeat_s=0.02, ident_s=0.5)
OWN = (OwnAddress(HOST, "this computer only"), OwnAddress("192.0.2.7", "network at eth0"))

needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal needs Linux or macOS")

Look = Callable[[Callable[[], object]], Coroutine[Any, Any, None]]


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    for _ in range(round(DEADLINE_S / LOOK_S)):
        if condition():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError("it never came")


def types() -> dict[str, AdapterType]:
    """All there are; silence on a line is short."""
    return {**Registry(), "iec62056": Iec62056(pace=Pace(detect=BRIEF))}


class Person:
    """Somebody at the wizard."""

    def __init__(self, wizard: ConnectionWizard, workbench: Workbench, secrets: FakeSecrets) -> None:
        self.wizard, self.workbench, self.secrets = wizard, workbench, secrets
        self.saved: list[Device] = []
        self.by_hand: list[ByHand] = []
        self.flows: list[str] = []
        wizard.saved.connect(self.saved.append)
        wizard.byHandRequested.connect(self.by_hand.append)
        wizard.flowRequested.connect(self.flows.append)

    def press(self, button: QPushButton) -> None:
        assert button.isVisible(), button.text()
        assert button.isEnabled(), f"{button.text()}: {self.wizard.missing.text()}"
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def choose(self, name: str) -> None:
        self.wizard.kinds.choose(name)
        self.press(self.wizard.next)
        assert self.wizard.page() is self.wizard.where

    def enter(self, name: str, text: str) -> None:
        editor = self.wizard.where.field(name).editor
        if isinstance(editor, port_picker.PortPicker):
            line = editor.lineEdit()
            assert line is not None
            line.clear()
            QTest.keyClicks(line, text)
        elif isinstance(editor, QPlainTextEdit):
            editor.setPlainText(text)
        else:
            assert isinstance(editor, QLineEdit)
            editor.clear()
            QTest.keyClicks(editor, text)

    async def look(self) -> None:
        """Begin the search."""
        await until(lambda: self.wizard.where.plan is not None)
        self.press(self.wizard.next)
        assert self.wizard.page() is self.wizard.search

    async def found(self) -> Candidate:
        await until(lambda: self.wizard.search.candidate() is not None)
        candidate = self.wizard.search.candidate()
        assert candidate is not None
        return candidate

    async def test(self) -> str:
        """On to the test, and what it says."""
        self.press(self.wizard.next)
        trial = self.wizard.trial
        await until(lambda: self.wizard.page() is trial and not trial.probing.is_under_way)
        return trial.result_box.sentences.text()

    async def save(self) -> tuple[Device, ...]:
        self.press(self.wizard.next)
        assert self.wizard.page() is self.wizard.saving
        self.press(self.wizard.next)
        await until(lambda: self.wizard.page() is self.wizard.done_page)
        return tuple(self.saved)

    def tried(self) -> list[str]:
        tries = self.wizard.search.tries
        items: list[Any] = [tries.topLevelItem(row) for row in range(tries.topLevelItemCount())]
        return [" | ".join(item.text(at) for at in range(4)) for item in items]


Act = Callable[[Person], Coroutine[Any, Any, None]]
AtWizard = Callable[..., None]


@pytest.fixture
def at_wizard(qapp: QApplication, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AtWizard:
    """Run ``act`` at a wizard over a running workbench, on the program's own loop."""
    monkeypatch.setattr(port_picker, "list_ports", tuple)
    monkeypatch.setattr(where_module, "addresses_of_this_machine", lambda: OWN)

    def go(
        act: Act,
        *,
        devices: tuple[Device, ...] = (),
        mode: ThemeMode = ThemeMode.LIGHT,
        is_dressed: bool = False,
        **more: Any,
    ) -> None:
        kept, theme = FakeSecrets(), Theme(qapp, mode)
        if is_dressed:
            theme.install()

        async def acted() -> int:
            with open_session(tmp_path / "w.mwk", adapter_types=types(), secrets=kept) as session:
                async with asyncio.timeout(DEADLINE_S), running(session.workbench), asyncio.TaskGroup() as group:
                    for one in devices:
                        session.workbench.save_device(one)
                    wizard = ConnectionWizard(
                        session.workbench, theme, group.create_task, secrets=kept, listen_at=HOST, **more
                    )
                    wizard.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
                    qtbot.addWidget(wizard)
                    wizard.open()
                    await act(Person(wizard, session.workbench, kept))
                    wizard.reject()
            return 0

        assert run(qapp, acted()) == 0

    return go


# ---------------------------------------------------------------- found, tested, saved


@needs_pty
def test_a_meter_at_an_unknown_rate_is_found_tested_and_saved(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        wizard = person.wizard
        async with Iec62056Meter(IecConfig(model="landis", baud=9600, speed=400.0, least_wait_s=2.0)) as meter:
            QTest.keyClicks(wizard.kinds.search, "optical")
            assert wizard.kinds.shown() == ["meter-line"]
            QTest.keyClick(wizard.kinds.search, Qt.Key.Key_Return)
            assert wizard.page() is wizard.where
            person.enter("port", meter.address)
            await until(lambda: meter.address in wizard.where.plan_label.text())
            assert "nothing is written" in wizard.where.plan_label.text()
            await person.look()
            found = await person.found()
            assert found.settings["baud"] == 9600
            first, *_, last = person.tried()
            assert first.startswith("silent")
            assert "300 7E1" in first
            assert last.startswith("answered")
            assert b"?!" in bytes(octet & 0x7F for octet in wizard.search.sent.data())
            assert found.identity.encode() in bytes(octet & 0x7F for octet in wizard.search.got.data())
            said = await person.test()
            assert wizard.trial.probing.is_passed, said
            assert wizard.saving.note.text() == ""
            (device,) = await person.save()
            await until(lambda: person.workbench.state(device.id).link is LinkState.ONLINE)
        assert (device.adapter, device.settings["baud"]) == ("iec62056", 9600)
        assert person.workbench.device(device.id).settings["address"] == meter.address
        assert device.name in wizard.done_page.text.text()

    at_wizard(act)


def test_a_certificate_is_compared_before_it_is_pinned(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        search = person.wizard.search
        async with LemDcbmSimulator(LemDcbmConfig(tls_on=True)) as sim:
            person.choose("lem-dcbm")
            person.enter("host", HOST)
            person.enter("port", str(sim.port))
            await person.look()
            found = await person.found()
            assert found.fingerprint
            assert search.fingerprint.text().replace("\n", ":") == found.fingerprint
            await until(lambda: not search.is_looking)
            assert not person.wizard.next.isEnabled()
            assert "Compare the fingerprint" in person.wizard.missing.text()
            search.compared.setChecked(True)
            assert found.fingerprint in await person.test()
            (device,) = await person.save()
        assert device.settings["tls_certificate"].strip() == sim.certificate_pem.strip()
        assert (device.serial, device.id) == (found.serial, f"lem-{found.serial}")

    at_wizard(act)


def test_a_gateway_that_dials_in_is_waited_for(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        wizard = person.wizard
        person.choose("aviora")
        await until(lambda: "192.0.2.7" in _words(wizard.where.field("listen_host").editor))
        person.enter("listen_port", "0")
        await person.look()
        search = wizard.search
        await until(search.waiting.isVisible)
        port = int(search.qr.text.rpartition(":")[2])
        assert search.qr.text == f"{HOST}:{port}"
        assert "this computer only" in search.waiting_text.text()
        config = AvioraConfig(push_port=port, time_scale=50.0)
        async with AvioraGatewaySimulator(config):
            found = await person.found()
        assert not search.waiting.isVisible()
        assert found.serial == config.serial
        assert found.serial.encode() in search.got.data()
        assert f"{HOST}:{port}" in await person.test()
        (device,) = await person.save()
        assert (device.kind, device.serial) == (NodeKind.GATEWAY, config.serial)
        assert device.settings["listen_port"] == port
        QTest.mouseClick(wizard.done_page.flow, Qt.MouseButton.LeftButton)
        assert person.flows == [device.id]

    at_wizard(act)


def test_a_token_may_be_entered_at_the_test(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        wizard = person.wizard
        person.choose("ems")
        person.enter("listen_port", "0")
        await person.look()
        await until(wizard.search.waiting.isVisible)
        port = int(wizard.search.qr.text.rpartition(":")[2])
        url = f"ws://{HOST}:{port}/ws/device/{{device_id}}"
        edge = EdgeConfig(url=url, ids=device_ids(1), token=TOKEN, retry_s=0.1, retry_most_s=0.2, time_scale=5.0)
        async with EmsEdgeSimulator(edge):
            found = await person.found()
        assert found.secrets == {}
        assert "without one it cannot be let in" in await person.test()
        token = wizard.trial.field("token").editor
        assert isinstance(token, QLineEdit)
        QTest.keyClicks(token, TOKEN)
        assert not wizard.trial.result_box.isVisible(), "it spoke of no token"
        assert wizard.next.text().endswith("without a good test")
        person.press(wizard.trial.test)
        await until(lambda: wizard.trial.probing.is_passed)
        (device,) = await person.save()
        assert device.settings["token"] == f"keyring:{device.id}.token"
        (kept,) = person.secrets.kept.items()
        assert kept[0] == f"{device.id}.token"
        assert kept[1].startswith("scrypt$"), "kept as the adapter keeps it"

    at_wizard(act)


# ---------------------------------------------------------------- accounts


def test_wrong_credentials_are_said_and_right_ones_find_gateways(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        wizard = person.wizard
        async with ChirpStackSimulator(config=ChirpStackConfig()) as sim:
            person.choose("calin-lorawan")
            person.enter("api_url", f"http://{HOST}:{sim.port}")
            person.enter("api_token", "not-this-one")
            await person.look()
            await until(lambda: not wizard.search.is_looking)
            assert "refused" in wizard.search.state.text()
            assert wizard.search.candidate() is None
            assert not wizard.next.isEnabled()
            assert b"GET /api/gateways" in wizard.search.sent.data()
            assert b"not-this-one" not in wizard.search.sent.data()
            person.press(wizard.back)
            person.enter("api_token", sim.config.api_token)
            await person.look()
            await person.found()
            await person.test()
            wizard.saving.session_only.setChecked(True)
            person.press(wizard.next)
            saving = wizard.saving
            assert saving.proposals.count() == len(sim.config.gateways)
            assert not saving.field("name").isVisible()
            rows = [saving.proposals.item(row) for row in range(saving.proposals.count())]
            if len(rows) > 1:
                rows[-1].setCheckState(Qt.CheckState.Unchecked)
            wanted = [row for row in rows if row.checkState() is Qt.CheckState.Checked]
            person.press(wizard.next)
            await until(lambda: wizard.page() is wizard.done_page)
        assert len(person.saved) == len(wanted)
        assert wizard.done_page.flow.isVisible() == (len(wanted) == 1)
        names = {str(one.settings["api_token"]) for one in person.saved}
        assert names == {f"keyring:{person.saved[0].id}.api_token"}, "one account, kept once"
        assert person.secrets.session == {f"{person.saved[0].id}.api_token": sim.config.api_token}
        assert person.secrets.kept == {}

    at_wizard(act)


class NoKeyring(FakeSecrets):
    def set(self, name: str, value: str) -> None:
        raise ConfigError("This computer has no usable keyring. Keep the secret for this session only.")


def candidate(**more: Any) -> Candidate:
    """Something that was found."""
    given: dict[str, Any] = {
        "title": "LEM 4711", "adapter": "fake-http", "settings": {"address": HOST}, "text": "It answers.",
        "serial": "4711", "secrets": {"password": "s3cret"}, "at": FakeWorkbench().clock.now(), **more,
    }  # fmt: skip
    return Candidate(**given)


def fake_wizard(
    qtbot: QtBot, qapp: QApplication, *devices: Device, **more: Any
) -> tuple[ConnectionWizard, FakeWorkbench]:
    """A wizard over a stand-in; what it would do on a loop is done at once."""
    workbench = FakeWorkbench(devices)
    given: dict[str, Any] = {"secrets": FakeSecrets(), **more}
    wizard = ConnectionWizard(workbench, Theme(qapp, ThemeMode.LIGHT), DirectRunner(), **given)
    wizard.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.addWidget(wizard)
    wizard.show()
    return wizard, workbench


def at_saving(wizard: ConnectionWizard, found: Candidate) -> None:
    wizard.trial.set_candidate(found)
    wizard._go_to(wizard.trial)
    wizard.go_on()
    assert wizard.page() is wizard.saving


def test_without_a_keyring_nothing_is_saved_and_the_reason_is_said(qtbot: QtBot, qapp: QApplication) -> None:
    wizard, workbench = fake_wizard(qtbot, qapp, secrets=NoKeyring())
    at_saving(wizard, candidate())
    wizard.next.click()
    assert "no usable keyring" in wizard.saving.result_box.sentences.text()
    assert not any(call[0] == "save_device" for call in workbench.calls)
    wizard.saving.session_only.setChecked(True)
    wizard.next.click()
    assert wizard.page() is wizard.done_page
    assert workbench.device("lem-4711").settings["password"] == "keyring:lem-4711.password"


def test_a_device_that_is_there_already_is_said_and_ids_do_not_clash(qtbot: QtBot, qapp: QApplication) -> None:
    there = Device(id="lem-4711", name="Bay 1", adapter="fake-http", serial="4711")
    site = Device(id="north", name="North", kind=NodeKind.SITE)
    wizard, workbench = fake_wizard(qtbot, qapp, there, site, parent_hint="north")
    at_saving(wizard, candidate())
    saving = wizard.saving
    assert "Bay 1 has the serial number 4711 too" in saving.note.text()
    assert saving.field("id").raw() == "lem-4711-2"
    assert saving.field("parent").raw() == "north"
    name = saving.field("name").editor
    assert isinstance(name, QLineEdit)
    name.clear()
    QTest.keyClicks(name, "Bay 2")
    assert saving.field("id").raw() == "bay-2"
    assert wizard.next.text() == "&Save Bay 2"
    short = saving.field("id").editor
    assert isinstance(short, QLineEdit)
    short.clear()
    QTest.keyClicks(short, "lem-4711")
    assert "already the id of Bay 1" in saving.field("id").error.text()
    assert not wizard.next.isEnabled()
    short.clear()
    QTest.keyClicks(short, "bay-2")
    serial = saving.field("serial").editor
    assert isinstance(serial, QLineEdit)
    assert serial.text() == "4711"
    serial.clear()
    QTest.keyClicks(serial, "4712")
    assert "Bay 1" not in saving.note.text()
    wizard.next.click()
    saved = workbench.device("bay-2")
    assert (saved.parent, saved.serial) == ("north", "4712")


def test_saving_without_a_good_test_is_possible_and_said(qtbot: QtBot, qapp: QApplication) -> None:
    wizard, workbench = fake_wizard(qtbot, qapp)
    workbench.probe_answer = ConfigError("The meter refused the password.", key="password")
    at_saving(wizard, candidate(secrets={}))
    assert "no good test" in wizard.saving.note.text()
    assert wizard.trial.result_box.sentences.text().endswith("The meter refused the password.")
    wizard.next.click()
    assert workbench.device("lem-4711").settings == {"address": HOST}
    wizard.done_page.another.click()
    assert wizard.page() is wizard.kinds


# ---------------------------------------------------------------- stopping and leaving


def test_a_search_that_is_stopped_frees_its_port_and_can_be_begun_again(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        wizard, search = person.wizard, person.wizard.search
        person.choose("aviora")
        person.enter("listen_port", "0")
        await person.look()
        await until(search.waiting.isVisible)
        QTest.keyClick(wizard, Qt.Key.Key_Escape)
        assert wizard.isVisible(), "Esc stops the search first"
        await until(lambda: not search.is_looking)
        assert search.state.text() == "The search was stopped after 0 tries."
        assert not is_taken(int(search.qr.text.rpartition(":")[2]))
        person.press(search.again)
        await until(search.waiting.isVisible)
        port = int(search.qr.text.rpartition(":")[2])
        assert is_taken(port)
        person.press(wizard.back)
        person.press(wizard.next)  # while the search before still lets go
        await until(lambda: search.waiting.isVisible() and search.qr.text != f"{HOST}:{port}")
        assert not is_taken(port)
        port = int(search.qr.text.rpartition(":")[2])
        person.press(wizard.leave)
        assert not wizard.isVisible()
        await until(lambda: not is_taken(port))
        assert person.workbench.devices() == ()

    at_wizard(act)


def is_taken(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except OSError:
            return True
    return False


def test_a_search_that_cannot_begin_says_why(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        wizard = person.wizard
        person.choose("lem-dcbm")
        person.enter("host", "10.0.0.0/8")
        await until(lambda: "is not searched" in wizard.where.plan_label.text())
        person.press(wizard.next)
        await until(lambda: not wizard.search.is_looking)
        assert "is not searched" in wizard.search.state.text()
        person.press(wizard.back)
        person.enter("port", "99999")
        assert not wizard.next.isEnabled()
        assert "Port" in wizard.missing.text()

    at_wizard(act)


def test_the_form_by_hand_begins_with_what_is_known(at_wizard: AtWizard) -> None:
    async def act(person: Person) -> None:
        async with LemDcbmSimulator(LemDcbmConfig()) as sim:
            person.choose("lem-dcbm")
            person.enter("host", HOST)
            person.enter("port", str(sim.port))
            await person.look()
            found = await person.found()
            person.press(person.wizard.by_hand)
        (known,) = person.by_hand
        assert not person.wizard.isVisible()
        assert known == ByHand("lem-dcbm", found.title, found.serial, {"host": HOST, "port": sim.port})

    at_wizard(act)


def tried(number: int, outcome: Outcome = Outcome.SILENT, **more: Any) -> Tried:
    """A try of a search."""
    at = FakeWorkbench().clock.now()
    return Tried(at=at, where="COM5", what=f"try {number}", text="Nothing came.", outcome=outcome, **more)


def test_a_try_that_was_chosen_stays_while_others_come(qtbot: QtBot, qapp: QApplication) -> None:
    wizard, _workbench = fake_wizard(qtbot, qapp)
    search = wizard.search
    wizard._go_to(search)
    search._take(tried(1, sent=b"/?!\r\n"))
    search._take(tried(2, Outcome.ANSWERED, got=b"/LGZ"))
    assert search.got.data() == b"/LGZ", "the list follows"
    first = search.tries.topLevelItem(0)
    assert first is not None
    place = search.tries.visualItemRect(first).center()
    QTest.mouseClick(search.tries.viewport(), Qt.MouseButton.LeftButton, pos=place)
    search._take(tried(3, Outcome.FAILED))
    assert (search.sent.data(), search.got.data()) == (b"/?!\r\n", b"")
    assert search.tries.topLevelItemCount() == 3


def test_one_of_several_is_chosen_and_each_fingerprint_compared_anew(qtbot: QtBot, qapp: QApplication) -> None:
    wizard, _workbench = fake_wizard(qtbot, qapp)
    search = wizard.search
    wizard._go_to(search)
    search._take(candidate(fingerprint="AA:BB:CC:DD"))
    search._take(candidate(title="LEM 4712", fingerprint="AA:BB:CC:EE"))
    search._take(candidate(title="LEM & Co"))
    search.compared.setChecked(True)
    assert wizard.next.isEnabled()
    search.found.setCurrentRow(1)
    assert not wizard.next.isEnabled()
    assert search.fingerprint.text() == "AA:BB\nCC:EE"
    search.found.setCurrentRow(2)
    assert not search.compared.isVisible()
    assert wizard.next.isEnabled()
    assert wizard.next.text() == "&Test LEM && Co"


# ---------------------------------------------------------------- what is drawn


def test_every_kind_has_a_picture_of_its_own(qapp: QApplication) -> None:
    theme = Theme(qapp, ThemeMode.LIGHT)
    drawn: dict[str, bytes] = {}
    for name in {kind.picture for kind in KINDS.values()} | {"none such"}:
        image = QImage(64, 64, QImage.Format.Format_ARGB32)
        image.fill(Qt.GlobalColor.transparent)
        painter = QPainter(image)
        paint_picture(painter, image.rect().toRectF(), name, theme)
        painter.end()
        drawn[name] = bytes(image.constBits())
    assert len(set(drawn.values())) == len(drawn)


def test_the_qr_code_is_dark_on_light_with_a_quiet_zone(qtbot: QtBot) -> None:
    view = QrView()
    qtbot.addWidget(view)
    view.set_text(f"{HOST}:4059")
    view.resize(view.sizeHint())
    image = view.grab().toImage()
    side = len(view._rows) + 2 * QUIET
    each = image.width() // side
    assert each >= 3
    seen = [[image.pixelColor(x * each + 1, y * each + 1).lightness() < 128 for x in range(side)] for y in range(side)]
    assert [row[QUIET:-QUIET] for row in seen[QUIET:-QUIET]] == [[bool(one) for one in row] for row in view._rows]
    assert not any(seen[0] + seen[-1] + [row[0] for row in seen])


def test_what_cannot_be_used_here_cannot_be_chosen(qtbot: QtBot, qapp: QApplication) -> None:
    wizard, _workbench = fake_wizard(qtbot, qapp)
    assert wizard.kinds.kind() is None, "the stand-in has none of them"
    assert not wizard.next.isEnabled()
    QTest.keyClicks(wizard.kinds.search, "no such thing")
    assert "Nothing is called no such thing" in wizard.kinds.nothing.text()
    wizard.by_hand.click()
    assert not wizard.isVisible()


@needs_pty
@pytest.mark.parametrize("mode", [pytest.param(ThemeMode.LIGHT, marks=pytest.mark.slow), ThemeMode.DARK])
def test_pictures_of_every_page(
    qapp: QApplication, at_wizard: AtWizard, artifacts: Path, mode: ThemeMode, own_look: None
) -> None:
    async def act(person: Person) -> None:
        wizard = person.wizard
        wizard.resize(1240, 760)

        async def shoot(name: str) -> None:
            await asyncio.sleep(0.03)  # for a frame
            assert not nameless(wizard)
            assert wizard.grab().save(str(artifacts / f"wizard-{name}-{mode.value}.png"))

        async def shoot_narrow(name: str) -> None:
            size = wizard.size()
            wizard.resize(880, 600)
            assert (wizard.width(), wizard.height()) == (880, 600), "it fits beside other windows"
            await shoot(f"{name}-narrow")
            wizard.resize(size)

        await shoot("what")
        await shoot_narrow("what")
        person.choose("calin-v1")
        await shoot("where-account")
        person.press(wizard.back)
        async with Iec62056Meter(IecConfig(model="landis", baud=9600, speed=400.0, least_wait_s=2.0)) as meter:
            person.choose("meter-line")
            person.enter("port", meter.address)
            await until(lambda: wizard.where.plan is not None)
            await shoot("where")
            await person.look()
            await until(lambda: len(person.tried()) > 1)
            await shoot("searching")
            await person.found()
            await until(lambda: not wizard.search.is_looking)
            await shoot("found")
            await shoot_narrow("found")
            await person.test()
            await shoot("test")
            await shoot_narrow("test")
        person.press(wizard.next)
        await shoot("save")
        person.press(wizard.next)
        await until(lambda: wizard.page() is wizard.done_page)
        await shoot("saved")
        person.press(wizard.done_page.another)
        async with LemDcbmSimulator(LemDcbmConfig(tls_on=True)) as sim:
            person.choose("lem-dcbm")
            person.enter("host", HOST)
            person.enter("port", str(sim.port))
            await person.look()
            await person.found()
            await until(lambda: not wizard.search.is_looking)
            await shoot("fingerprint")
            await shoot_narrow("fingerprint")
        person.press(wizard.back)
        person.press(wizard.back)
        person.choose("ems")
        await until(lambda: "192.0.2.7" in _words(wizard.where.field("listen_host").editor))
        person.enter("listen_port", "0")
        person.enter("device_id", "ems_001")
        await until(lambda: wizard.where.plan is not None)
        await shoot("where-dial-in")
        await person.look()
        await until(wizard.search.waiting.isVisible)
        await shoot("waiting")
        await shoot_narrow("waiting")
        person.press(wizard.back)
        person.press(wizard.back)
        async with ChirpStackSimulator(config=ChirpStackConfig()) as stack:
            person.choose("calin-lorawan")
            person.enter("api_url", f"http://{HOST}:{stack.port}")
            person.enter("api_token", "not-this-one")
            await person.look()
            await until(lambda: not wizard.search.is_looking)
            await shoot("refused")
            person.press(wizard.back)
            person.enter("api_token", stack.config.api_token)
            await person.look()
            await person.found()
            await person.test()
            person.press(wizard.next)
            await shoot("save-many")

    at_wizard(act, mode=mode, is_dressed=True)


@pytest.fixture
def own_look(qapp: QApplication) -> Iterator[None]:
    """The program's style, until the end of the test."""
    style, palette = qapp.style().objectName(), qapp.palette()
    yield
    qapp.styleHints().unsetColorScheme()
    qapp.setStyle(style)
    qapp.setPalette(palette)


def nameless(wizard: ConnectionWizard) -> list[str]:
    """What can be reached by the keyboard and has no name."""
    reached = [one for one in wizard.findChildren(QWidget) if one.isVisible() and one.focusPolicy() & _TAB]
    named = (QPushButton, QCheckBox)
    return [
        f"{type(one).__name__} {one.objectName()}"
        for one in reached
        if one.focusProxy() is None and not one.accessibleName() and not (isinstance(one, named) and one.text())
    ]


def _words(editor: QWidget) -> str:
    assert isinstance(editor, QComboBox)
    return " ".join(editor.itemText(at) for at in range(editor.count()))
