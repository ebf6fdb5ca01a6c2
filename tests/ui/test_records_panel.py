"""Signed records: verdicts in words and colour, keys typed by hand, verbatim export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.model.interaction import Interaction
from app.model.status import Status
from app.protocols.ocmf import KeyOrigin, Trust, Verdict
from tests.ui.fakes import FakeWorkbench, site
from tests.ui.log_fakes import MemoryReader, interaction, memory_log, until
from ui.log_access import LogAccess
from ui.panels.ocmf import VERDICT_LOOKS, RecordsPanel, signed_record
from ui.theme import Role, Theme, ThemeMode

# A genuine record published by S.A.F.E. e.V. with its transparency software (Apache-2.0): VW_OCMF_load.xml.
GENUINE = (
    'OCMF|{"FV":"1.0","GI":"LEM DCBM","GS":"1211751603","GV":"v1","PG":"T144","MV":"LEM","MS":"1211751603",'
    '"MF":"MU-0.1.4.0_SU-0.0.8.0","IS":true,"IL":"HEARSAY","IF":["RFID_RELATED","OCPP_AUTH_TLS","ISO15118_NONE",'
    '"PLMN_NONE"],"IT":"ISO14443","ID":"5EEFE0C7F64B050E9FB95C","CT":"EVSEID","CI":"458877","RD":[{"TM":'
    '"2021-10-06T13:13:56,000+0200 R","TX":"B","RV":57.584,"RI":"1-0:1.8.0","RU":"kWh","RT":"DC","EF":"","ST":"G",'
    '"UC":{"UN":"No_Comp","UI":2,"UR":0}},{"RV":4.405,"RI":"1-0:2.8.0","RU":"kWh","ST":"G"},{"TM":'
    '"2021-10-06T13:15:13,000+0200 R","TX":"E","RV":58.685,"RI":"1-0:1.8.0","RU":"kWh","ST":"G"},{"RV":4.405,'
    '"RI":"1-0:2.8.0","RU":"kWh","ST":"G"}]}|{"SA":"ECDSA-secp256r1-SHA256","SD":"3045022100E1C80E7115294A3A4D10CFF8'
    'B94E959F941415E19A0913A0538312E585E1A37702200A2BE1B235C152CFC7555064A96533F192A8A1D4E0484C68FD46574947A3D9BA"}'
)
POINT = (
    "CE6FD2090A85FDE4A69B58EF00FDE362833AD8C70F8E8027CAAC655C0BB02F6B"
    "1A44558C78B386FF0BC3A4BBE6C81A4F8133134DB05DAE91E2AA309C07A5128B"
)
KEY = f"3059301306072A8648CE3D020106082A8648CE3D03010703420004{POINT}"


def record_item(number: int, *, forged: bool = False, key: str = KEY, intermediate: bool = False) -> Interaction:
    """A finished stop of a transaction with a record in its answer."""
    text = GENUINE.replace("58.685", "68.685") if forged else GENUINE
    result = {"record": text, "public_key": key, "transaction_id": f"tx-{number}", "intermediate": intermediate}
    return interaction(number, Status.SUCCESSFUL, command="STOP_TRANSACTION", device="lem-1", result=result)


Open = Callable[..., RecordsPanel]


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader([record_item(1), record_item(2, forged=True), record_item(3, key=""), interaction(5)])


@pytest.fixture
def make(qapp: QApplication, qtbot: QtBot, reader: MemoryReader) -> Iterator[Open]:
    logs: list[LogAccess] = []
    theme = Theme(qapp, ThemeMode.LIGHT)

    def opened(workbench: FakeWorkbench | None = None) -> RecordsPanel:
        log = memory_log(reader)
        logs.append(log)
        panel = RecordsPanel(workbench or FakeWorkbench(site()), log, theme)
        qtbot.addWidget(panel)
        return panel

    yield opened
    for log in logs:
        log.close()


def choose(panel: RecordsPanel, row: int) -> None:
    item = panel.list.topLevelItem(row)
    assert item is not None
    panel.list.setCurrentItem(item)


def test_records_are_listed_newest_first_with_their_verdict(make: Open, qtbot: QtBot) -> None:
    panel = make()
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 3))
    verdicts = [item.text(2) for n in range(3) if (item := panel.list.topLevelItem(n)) is not None]
    assert verdicts == ["not checked: no key", "not genuine", "genuine"]
    choose(panel, 2)
    assert panel.badge.text() == "genuine"
    assert panel.energy.text() == "1.101 kWh"
    assert panel.verification is not None
    assert panel.verification.trust is Trust.INTEGRITY
    assert "integrity only" in panel.trust.text()
    assert "Billable" in panel.reasons.text()
    assert [row[2] for row in panel.readings_model.rows()] == ["57.584", "4.405", "58.685", "4.405"]
    assert panel.raw.toPlainText() == GENUINE


def test_only_a_genuine_record_is_green() -> None:
    assert set(VERDICT_LOOKS) == set(Verdict)
    green = [verdict for verdict, look in VERDICT_LOOKS.items() if look.role is Role.GOOD]
    assert green == [Verdict.VALID]
    bad = [verdict for verdict, look in VERDICT_LOOKS.items() if look.role is Role.BAD]
    assert bad == [Verdict.INVALID_SIGNATURE]
    assert len({look.word for look in VERDICT_LOOKS.values()}) == len(Verdict)


@pytest.mark.parametrize("typed", [POINT, KEY.lower(), " ".join(POINT[i : i + 4] for i in range(0, 128, 4))])
def test_a_typed_key_is_taken_in_any_form(make: Open, qtbot: QtBot, typed: str) -> None:
    panel = make()
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 3))
    choose(panel, 0)
    assert panel.badge.text() == "not checked: no key"
    panel.key.setText(typed)
    panel.verify_button.click()
    assert panel.badge.text() == "genuine"
    assert panel.verification is not None
    assert panel.verification.key_origin is KeyOrigin.PRINTED
    assert panel.verification.trust is Trust.AUTHENTIC
    panel.key.setText("nonsense")
    panel.verify_again()
    assert panel.badge.text() == "not checked: unusable key"
    choose(panel, 1)
    assert panel.key.text() == ""


def test_a_key_stored_at_commissioning_makes_it_authentic(make: Open, qtbot: QtBot) -> None:
    devices = [replace(d, attributes={"public_key": KEY}) if d.id == "lem-1" else d for d in site()]
    panel = make(FakeWorkbench(devices))
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 3))
    choose(panel, 2)
    assert panel.verification is not None
    assert panel.verification.trust is Trust.AUTHENTIC


def test_a_record_that_ends_live_appears(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items.clear()
    panel = make()
    qtbot.waitUntil(until(lambda: "No signed records" in panel.empty_text()))
    fresh = record_item(9)
    reader.items.append(fresh)
    panel.on_batch([interaction(8)])
    panel.on_batch([fresh])
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 1))


def test_intermediate_records_say_that_they_are_not_billable(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items = [record_item(4, intermediate=True)]
    panel = make()
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 1))
    assert not panel.intermediate.isHidden()
    assert "not billable" in panel.intermediate.text()
    assert "Billable: " not in panel.reasons.text()


def test_copy_and_export_are_verbatim(make: Open, qtbot: QtBot, tmp_path: Path) -> None:
    panel = make()
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 3))
    choose(panel, 2)
    panel.copy()
    assert QGuiApplication.clipboard().text() == GENUINE
    chosen = panel.chosen
    assert chosen is not None
    odd = replace(chosen, data=b"OCMF|{}\r\n\n|{}")
    assert panel.write(odd, tmp_path / "one.ocmf")
    assert (tmp_path / "one.ocmf").read_bytes() == b"OCMF|{}\r\n\n|{}"
    assert not panel.write(odd, tmp_path / "missing" / "one.ocmf")
    assert "could not be written" in panel.sentence.text()


def test_the_command_behind_a_record_can_be_shown(make: Open, qtbot: QtBot) -> None:
    panel = make()
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 3))
    choose(panel, 1)
    with qtbot.waitSignal(panel.interactionActivated) as told:
        panel.show_button.click()
    assert told.args == [2]


def test_a_broken_log_is_told(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.is_broken = True
    panel = make()
    qtbot.waitUntil(until(lambda: "could not be read" in panel.empty_text()))


def test_only_answers_with_a_record_count() -> None:
    assert signed_record(interaction(3, Status.SUCCESSFUL)) is None
    assert signed_record(interaction(3, Status.FAILED, command="READ_RECORD")) is None
    found = signed_record(record_item(3))
    assert found is not None
    assert found.transaction == "tx-3"
    assert found.data == GENUINE.encode()
    odd = {"record": "OCMF|\\xff", "record_base64": "T0NNRnz/"}
    kept = signed_record(interaction(3, Status.SUCCESSFUL, command="READ_RECORD", result=odd))
    assert kept is not None
    assert kept.data == b"OCMF|\xff"
