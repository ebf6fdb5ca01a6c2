"""The accuracy panel: from an empty workspace over plan and measurement to verdicts, kept results and files."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QAbstractItemModelTester, QTest
from PySide6.QtWidgets import QApplication, QComboBox, QPushButton
from pytestqt.qtbot import QtBot

from app.adapters.lem_dcbm import CURRENT, IMPORT, POWER, TEMPERATURE_HIGH, VOLTAGE
from app.lab.accuracy import AccuracyRun, Kind, Phase, Role, Verdict
from app.lab.series import SeriesKey
from app.model.device import Device
from app.model.reading import Quantity, SampleSet, Severity
from app.model.records import DeviceRemoved
from tests.ui.fakes import FakeWorkbench
from tests.ui.test_panel_screenshots import Shoot, quiet_app, shoot, theme
from ui.models.accuracy import (
    SETTING,
    Column,
    Kept,
    Length,
    PointsModel,
    html_page,
    is_record,
    plan_of,
    verdict_of,
)
from ui.panels.accuracy import AccuracyPanel
from ui.theme import Theme, ThemeMode

__all__ = ["quiet_app", "shoot", "theme"]  # fixtures

DUT, REF = "lem-dut", "lem-ref"
POINT = ("", "400", "90", "1", "1", "balanced", "1", "test specification 7")  # 36 kW: 10 Wh a second


def bench_of(settings: dict[str, Any] | None = None) -> FakeWorkbench:
    bench = FakeWorkbench(
        (
            Device(id=DUT, name="LEM DCBM 4711", adapter="fake-http", serial="1211215314"),
            Device(id=REF, name="Reference 1", adapter="fake-http"),
        )
    )
    bench.settings.update(settings or {})
    return bench


class Lab:
    """A panel and two LEM meters at 36 kW whose samples it gets; the meter under test counts wrong by ``error``."""

    def __init__(self, theme: Theme, bench: FakeWorkbench | None = None, **more: Any) -> None:
        self.bench = bench or bench_of()
        self.panel = AccuracyPanel(self.bench, theme, zone=UTC, **more)
        self.told: list[tuple[str, Severity]] = []
        self.panel.told.connect(lambda text, severity: self.told.append((text, severity)))
        self.wh = {DUT: Decimal(196614), REF: Decimal(5000)}

    def feed(self, seconds: int, error: float = 0.0, silent: str = "") -> None:
        for _ in range(seconds):
            self.bench.fake_clock.move(1.0)
            now = self.bench.clock.now()
            self.wh[DUT] += Decimal(str(round(10.0 * (1.0 + error / 100.0), 6)))
            self.wh[REF] += Decimal(10)
            self.panel.on_samples([self.sample(device, now) for device in (DUT, REF) if device != silent])

    def sample(self, device: str, at: datetime) -> SampleSet:
        wh = self.wh[device].quantize(Decimal(1)) if device == DUT else self.wh[device]
        values = ((VOLTAGE, "400.0"), (CURRENT, "90.000"), (POWER, "36000"), (TEMPERATURE_HIGH, "31.0"))
        return SampleSet(
            device=device,
            received=at,
            values=(*((quantity, Decimal(text)) for quantity, text in values), (IMPORT, wh)),
        )

    def plan(self, *points: tuple[str, ...], **values: str | int) -> None:
        """Fill in the form as a person does."""
        editor = self.panel.editor
        for role, device in ((Role.DUT, DUT), (Role.REFERENCE, REF)):
            picker = editor.pickers[role]
            picker.device.setCurrentIndex(picker.device.findData(device))
        editor.points.set_points(points or (POINT,))
        entries: dict[str, str | int] = {
            "length.time": 300,
            "repeats": 2,
            "certificate.expanded": "0.05",
            "certificate.number": "C-1",
        }
        for place, value in {**entries, **{key.replace("__", "."): value for key, value in values.items()}}.items():
            self.type(place, value)
        editor.judge()

    def type(self, place: str, value: str | int) -> None:
        one = self.panel.editor.field(place)
        one.set_value(value)
        one.edited.emit()


@pytest.fixture
def app_theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def lab(app_theme: Theme, qtbot: QtBot) -> Lab:
    made = Lab(app_theme)
    qtbot.addWidget(made.panel)
    made.panel.resize(1000, 700)
    made.panel.show()
    return made


def phase(run: AccuracyRun) -> Phase:
    return run.phase


def click(button: QPushButton) -> None:
    assert button.isVisible()
    assert button.isEnabled()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def current_tab(panel: AccuracyPanel) -> object:
    return panel.tabs.currentWidget()


# ---------------------------------------------------------------- the whole way


@pytest.mark.parametrize(
    ("error", "verdict", "words"),
    [
        (0.0, Verdict.PASS, "At every load point the error is within the limit, its uncertainty included."),
        (3.0, Verdict.FAIL, "The error is beyond the limit at load point 1."),
        (1.0, Verdict.UNDECIDED, "At load point 1 the limit lies within the uncertainty"),
    ],
)
def test_from_nothing_to_a_verdict(lab: Lab, error: float, verdict: Verdict, words: str, tmp_path: Path) -> None:
    panel = lab.panel
    assert "Connect both in the tree" in panel.empty_text()
    lab.feed(3)
    assert panel.empty_text() == ""
    lab.plan(certificate__expanded="0.2")
    assert panel.editor.field("dut.resolution").raw() == "1"  # suggested by the decimals of its values
    assert panel.editor.field("dut.kind").raw() == Kind.REGISTER
    click(panel.editor.start)
    run = panel.run
    assert run is not None
    assert current_tab(panel) is panel.run_view
    assert run.plan.dut.title == "LEM DCBM 4711, serial number 1211215314"
    assert "Set the load to 400 V, 90 A, power factor 1, 36000 W" in panel.run_view.sentence.text()
    lab.feed(5)
    assert phase(run) is Phase.LOAD  # a person says when
    click(panel.run_view.begin)
    lab.feed(150, error)
    panel.on_tick()
    assert phase(run) is Phase.MEASURING
    assert "Repeat 1 of 2: 149 s of 300 s, 1490 Wh" in panel.run_view.count.text()
    assert panel.run_view.error.text().endswith("(k = 2)   limit ±1 %")
    assert panel.run_view.progress.value() == pytest.approx(500, abs=5)
    lab.feed(460, error)
    assert not panel.is_running
    assert current_tab(panel) is panel.results
    record = panel.results.record
    assert record is not None
    assert verdict_of(record) is verdict
    assert words in panel.results.sentence.text()
    assert record["points"][0]["error"]["value"] == pytest.approx(error, abs=0.02)
    assert lab.told[-1][0].startswith("Accuracy test: load point 1 of 1: ")
    assert panel.results.verdict.text() == verdict.value

    panel.results.copy()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert f"Point 1, error\t{verdict.value}\t" in "\n".join(lines)
    assert len(lines) == panel.results.model.rowCount()
    assert panel.results.write(record, tmp_path / "result.json", "json")
    assert json.loads((tmp_path / "result.json").read_text("utf-8")) == json.loads(json.dumps(record))
    assert panel.results.write(record, tmp_path / "result.html", "html")
    page = (tmp_path / "result.html").read_text("utf-8")
    assert f'<h2 class="{verdict.value}">' in page
    assert "test specification 7" in page
    assert not panel.results.write(record, tmp_path / "none" / "result.html", "html")
    assert "Choose another folder." in panel.results.outcome.text()


def test_load_points_one_after_the_other(lab: Lab) -> None:
    panel = lab.panel
    lab.feed(2)
    second = ("low load", "400", "9", "1", "1", "balanced", "2", "")
    lab.plan(POINT, second, repeats=1, **{"length.time": 100})
    click(panel.editor.start)
    click(panel.run_view.begin)
    lab.feed(103)
    run = panel.run
    assert run is not None
    assert (run.phase, len(run.results)) == (Phase.LOAD, 1)
    assert lab.told[-1][0].endswith("Set the load of the next one.")
    assert "low load (400 V, 9 A, power factor 1)" in panel.run_view.sentence.text()
    states = [panel.run_view.model.cell(row, 1) for row in (0, 1)]
    assert states == ["pass", "set the load"]
    assert panel.results.record is not None  # what is measured is kept at once
    click(panel.run_view.end)
    assert current_tab(panel) is panel.results
    assert "1 of 2 load points were measured." in panel.results.sentence.text()


# ---------------------------------------------------------------- what goes wrong


def test_a_silent_meter_breaks_the_point_off_and_it_is_measured_again(lab: Lab) -> None:
    panel = lab.panel
    lab.feed(2)
    lab.plan(repeats=1, **{"length.time": 60})
    click(panel.editor.start)
    click(panel.run_view.begin)
    lab.feed(20)
    lab.feed(8, silent=REF)
    panel.on_tick()
    run = panel.run
    assert run is not None
    assert phase(run) is Phase.MEASURING
    lab.feed(4, silent=REF)
    panel.on_tick()
    assert phase(run) is Phase.ABORTED
    assert "the reference was silent for 12.0 s" in panel.run_view.sentence.text()
    assert lab.told == [
        ("Accuracy test: load point 1 was broken off: the reference was silent for 12.0 s.", Severity.WARNING)
    ]
    assert panel.run_view.begin.text() == "Measure this load point again"
    lab.feed(3)
    click(panel.run_view.begin)
    lab.feed(65)
    record = panel.results.record
    assert not panel.is_running
    assert record is not None
    assert [item["reason"] for item in record["aborted"]] == ["the reference was silent for 12.0 s"]
    assert len(record["points"]) == 1
    assert len(panel.results._records) == 1  # one test, one record


def test_broken_off_by_hand_with_a_reason(lab: Lab) -> None:
    panel, view = lab.panel, lab.panel.run_view
    lab.feed(2)
    lab.plan()
    click(panel.editor.start)
    QTest.keyClick(view.begin, Qt.Key.Key_Space)
    lab.feed(5)
    click(view.stop)
    assert view.why.hasFocus()
    QTest.keyClick(view.why, Qt.Key.Key_Escape)
    assert not view.why.isVisible()
    assert panel.run is not None
    assert phase(panel.run) is Phase.MEASURING
    click(view.stop)
    QTest.keyClicks(view.why, "clamp fell off")
    QTest.keyClick(view.why, Qt.Key.Key_Return)
    assert phase(panel.run) is Phase.ABORTED
    assert "clamp fell off" in view.sentence.text()
    assert view.begin.hasFocus()
    click(view.end)
    assert panel.results.record is not None
    assert verdict_of(panel.results.record) is Verdict.NONE
    assert panel.results.record["aborted"][0]["reason"] == "clamp fell off"


def test_a_quantity_in_another_unit_breaks_off(lab: Lab) -> None:
    lab.feed(2)
    lab.plan()
    click(lab.panel.editor.start)
    click(lab.panel.run_view.begin)
    lab.feed(5)
    odd = Quantity(IMPORT.name, "kWh")
    sample = SampleSet(device=DUT, received=lab.bench.clock.now(), values=((odd, Decimal(1)),))
    lab.panel.on_samples([sample])
    assert 'came in "kWh", the test expects "Wh"' in lab.panel.run_view.sentence.text()


def test_what_is_wrong_stands_under_its_field(lab: Lab) -> None:
    panel, editor = lab.panel, lab.panel.editor
    lab.feed(2)
    click(editor.start)
    assert not panel.is_running
    assert editor.pickers[Role.DUT].error.text() == "Choose a device and one of its quantities."
    assert editor.pickers[Role.DUT].device.hasFocus()
    assert editor.reason.text().startswith("Before it can start: Choose a device")
    lab.plan(("", "230,0", "5", "1", "1", "balanced", "", ""), **{"certificate.error": "120", "dut.factor": "-1"})
    click(editor.start)
    assert editor.points.error.text() == "Load point 1: Voltage must be a number, not '230,0'."
    assert editor.pickers[Role.DUT].error.isHidden()
    editor.points.model.setData(editor.points.model.index(0, Column.VOLTAGE), "230")
    click(editor.start)
    assert editor.field("dut.factor").error.text().endswith("the factor must be above 0.")
    assert "within 100 %" in editor.field("certificate.error").error.text()
    lab.type("dut.factor", 1)
    lab.type("certificate.error", "0.01")
    picker = editor.pickers[Role.REFERENCE]
    picker.set_key(SeriesKey(DUT, IMPORT.name, IMPORT.unit))
    click(editor.start)
    assert picker.error.text() == "The meter under test and the reference are the same quantity: take two."
    picker.set_key(SeriesKey(REF, IMPORT.name, IMPORT.unit))
    click(editor.start)
    assert panel.is_running


def test_warnings_before_the_start(lab: Lab) -> None:
    lab.feed(2)
    lab.plan(repeats=1, length__time=5, certificate__expanded="")
    text = lab.panel.editor.warnings.text()
    assert "Nothing is stated of the reference's own uncertainty" in text
    assert "5 s are too short. Resolution and timing take more than a fifth" in text
    assert "One repeat says nothing about repeatability" in text
    assert lab.panel.editor.start.isEnabled()


def test_a_class_asks_for_the_currents_of_its_plate(lab: Lab) -> None:
    editor = lab.panel.editor
    lab.feed(2)
    lab.plan(("", "230", "10", "1", "1", "balanced", "", ""), **{"class": "EN 50470-3/B"})
    assert {"ratings.Imin", "ratings.Itr", "ratings.Imax"} <= set(editor._fields)
    assert "ratings.Ib" not in editor._fields
    for name, ampere in (("Imin", "0.25"), ("Itr", "0.5"), ("Imax", "60")):
        lab.type(f"ratings.{name}", ampere)
    editor.judge()
    limit = editor.points.model.index(0, Column.LIMIT)
    assert limit.data() == "1"
    assert editor.points.model.index(0, Column.SOURCE).data().startswith("EN 50470-3")
    plan, faults = plan_of(editor.draft(), str)
    assert not faults
    assert plan is not None
    assert plan.limit(plan.points[0]).percent == 1.0
    editor.points.model.setData(limit, "0.7")
    assert editor.points.model.index(0, Column.SOURCE).data() == ""
    lab.type("class", "IEC 62053-21/1")
    assert "ratings.Ib" in editor._fields
    lab.type("class", "EN 50470-3/B")
    assert editor.field("ratings.Imax").raw() == "60"  # what was typed once is there again


def test_pulses_and_energy_ask_for_what_they_need(lab: Lab) -> None:
    lab.feed(2)
    lab.plan()
    assert "dut.pulses" not in lab.panel.editor._fields
    lab.type("dut.kind", Kind.PULSES)
    lab.type("length.by", Length.ENERGY)
    editor = lab.panel.editor
    assert "length.time" not in editor._fields
    plan, faults = plan_of(editor.draft(), str)
    assert plan is None
    assert {fault.place for fault in faults} == {"dut.pulses", "length.energy"}
    lab.type("dut.pulses", "1000")
    lab.type("length.energy", "1500")
    plan, faults = plan_of(editor.draft(), str)
    assert not faults
    assert plan is not None
    assert (plan.dut.pulses_per_kwh, plan.energy_wh, plan.duration_s) == (1000.0, 1500.0, None)


# ---------------------------------------------------------------- the table of load points


def test_the_table_of_load_points(lab: Lab) -> None:
    table = lab.panel.editor.points
    lab.feed(1)
    lab.plan()
    QAbstractItemModelTester(table.model, QAbstractItemModelTester.FailureReportingMode.QtTest)
    table.table.setFocus()
    QTest.keyClick(table.table, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    click(table.add)
    assert table.model.points == (POINT,) * 3
    table.table.selectRow(1)
    QTest.keyClick(table.table, Qt.Key.Key_Delete)
    assert table.model.rowCount() == 2
    click(table.undo)
    assert table.model.rowCount() == 3
    for row in (0, 1):
        table.table.selectRow(0)
        click(table.remove)
        assert table.model.rowCount() == 2 - row
    assert not table.remove.isEnabled()  # a test has one at least


def test_cells_with_usual_values_are_boxes(lab: Lab) -> None:
    table = lab.panel.editor.points
    lab.feed(1)
    lab.plan()
    for column, text, kept in ((Column.FACTOR, "0.5 inductive", "0.5 inductive"), (Column.LOAD, "one phase", "single")):
        index = table.model.index(0, column)
        table.table.edit(index)
        editor = table.table.indexWidget(index) or table.table.findChild(QComboBox)
        assert isinstance(editor, QComboBox)
        editor.setCurrentIndex(editor.findText(text))
        delegate = table.table.itemDelegate()
        delegate.setModelData(editor, table.model, index)
        delegate.closeEditor.emit(editor)
        assert table.model.points[0][column] == kept
        editor.setParent(None)


def test_the_model_by_itself(app_theme: Theme) -> None:
    model = PointsModel(app_theme)
    QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.QtTest)
    model.set_points([POINT, ("", "", "x", "2", "9", "balanced", "", "")])
    assert [text.partition(":")[0] for text in model.faults()] == ["Load point 2"]
    assert "Voltage is missing" in model.index(1, Column.TITLE).data(Qt.ItemDataRole.ToolTipRole)


# ---------------------------------------------------------------- kept with the workspace


def test_a_restart_shows_the_last_result_and_plan(lab: Lab, app_theme: Theme, qtbot: QtBot) -> None:
    lab.feed(2)
    lab.plan(title="Sample 12", repeats=1, **{"length.time": 100})
    click(lab.panel.editor.start)
    click(lab.panel.run_view.begin)
    lab.feed(103)
    lab.panel.close_session()
    kept = json.loads(json.dumps(lab.bench.settings))
    later = Lab(app_theme, bench_of(kept))
    qtbot.addWidget(later.panel)
    later.panel.show()
    assert later.panel.empty_text() == ""
    assert current_tab(later.panel) is later.panel.results
    assert later.panel.results.chooser.currentText().endswith("Sample 12: pass")
    assert later.panel.editor.draft() == lab.panel.editor.draft()
    assert later.panel.editor.pickers[Role.DUT].quantity.currentText() == "energy_import (Wh), no value yet"
    click(later.panel.results.again)
    click(later.panel.run_view.begin)
    later.feed(105)
    assert len(Kept.from_json(later.bench.settings[SETTING]).records) == 2


def test_closing_ends_the_test_and_keeps_what_was_measured(lab: Lab) -> None:
    lab.feed(2)
    lab.plan()
    click(lab.panel.editor.start)
    click(lab.panel.run_view.begin)
    lab.feed(5)
    lab.panel.close_session()
    (record,) = Kept.from_json(lab.bench.settings[SETTING]).records
    assert record["aborted"][0]["reason"] == "the workspace was closed"
    assert not lab.panel.is_running


def test_a_draft_is_kept_as_it_stands(lab: Lab, qtbot: QtBot) -> None:
    lab.feed(2)
    lab.type("length.time", "many")
    qtbot.waitUntil(lambda: SETTING in lab.bench.settings)
    assert Kept.from_json(lab.bench.settings[SETTING]).draft.values["length.time"] == "many"


@pytest.mark.parametrize(
    "stored",
    [None, 7, [], {"draft": 1, "records": {}}, {"draft": {"points": [[1]], "dut": ["a"]}, "records": [{"points": []}]}],
)
def test_what_another_version_kept_does_no_harm(stored: Any, app_theme: Theme, qtbot: QtBot) -> None:
    panel = AccuracyPanel(bench_of({SETTING: stored}), app_theme, zone=UTC)
    qtbot.addWidget(panel)
    assert panel.editor.points.model.rowCount() == 1
    assert Kept.from_json(stored) == Kept()
    assert not is_record(stored)


def test_a_recording_measures_nothing(app_theme: Theme, qtbot: QtBot) -> None:
    lab = Lab(app_theme, is_live=False)
    qtbot.addWidget(lab.panel)
    lab.panel.show()
    lab.feed(2)
    lab.plan()
    assert not lab.panel.editor.start.isEnabled()
    assert "a test needs live meters" in lab.panel.editor.reason.text()
    lab.panel.start()
    assert not lab.panel.is_running
    lab.panel.save()
    assert SETTING not in lab.bench.settings


def test_devices_change_their_names_and_go(lab: Lab) -> None:
    lab.feed(2)
    picker = lab.panel.editor.pickers[Role.REFERENCE]
    renamed = replace(lab.bench.device(REF), name="Standard 9")
    lab.bench.tree[REF] = renamed
    lab.panel.on_batch([renamed])
    assert picker.device.findText("Standard 9") > 0
    lab.panel.on_batch([DeviceRemoved(REF)])
    assert picker.device.findText("Standard 9") < 0
    shown = [picker.quantity.itemText(n) for n in range(picker.quantity.count())]
    assert shown == ["– choose –"]


def test_only_energy_power_and_counts_can_be_chosen(lab: Lab) -> None:
    lab.feed(2)
    picker = lab.panel.editor.pickers[Role.DUT]
    picker.device.setCurrentIndex(picker.device.findData(DUT))
    assert [picker.quantity.itemText(n) for n in range(1, picker.quantity.count())] == [
        "Power (W)",
        "Energy import (Wh)",
    ]
    assert picker.key() == SeriesKey(DUT, "energy_import", "Wh")
    picker.quantity.setCurrentIndex(1)
    assert lab.panel.editor.field("dut.kind").raw() == Kind.POWER


def test_the_page_escapes_what_people_typed(lab: Lab) -> None:
    lab.feed(2)
    lab.plan(title="<b>&", repeats=1, **{"length.time": 30})
    click(lab.panel.editor.start)
    click(lab.panel.run_view.begin)
    lab.feed(35)
    record = lab.panel.results.record
    assert record is not None
    page = html_page(record)
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert page == html_page(json.loads(json.dumps(record)))
    assert "<" not in lab.panel.results.file_name(record, "html")


def test_every_control_has_a_name(lab: Lab) -> None:
    lab.feed(2)
    nameless = [
        widget.objectName() or type(widget).__name__
        for kind in (QComboBox, QPushButton)
        for widget in lab.panel.findChildren(kind)
        if not (widget.accessibleName() or (isinstance(widget, QPushButton) and widget.text()))
    ]
    assert nameless == []


# ---------------------------------------------------------------- pictures


def run_lab(theme: Theme, *points: tuple[str, ...], **values: str | int) -> Lab:
    lab = Lab(theme)
    lab.feed(3)
    lab.plan(*points, **values)
    return lab


THREE = (
    ("", "400", "90", "1", "1", "balanced", "1", "test specification 7"),
    ("light load", "400", "9", "1", "1", "balanced", "1.5", "test specification 7"),
    ("", "400", "45", "1", "1", "balanced", "", ""),
)


def test_pictures_of_the_plan(theme: Theme, shoot: Shoot) -> None:
    lab = Lab(theme)
    shoot(lab.panel, "accuracy-empty", 1280, 720)
    lab.feed(3)
    shoot(lab.panel, "accuracy-new", 1280, 720)
    lab.panel.editor.check()
    shoot(lab.panel, "accuracy-faults", 1280, 720)
    lab = run_lab(theme, *THREE, **{"length.time": 20})
    shoot(lab.panel, "accuracy-warnings", 1280, 720)
    lab = run_lab(theme, *THREE[2:], **{"class": "EN 50470-3/B", "ratings.Imin": "0.25"})
    shoot(lab.panel, "accuracy-class-narrow-200", 620, 720, 2.0)
    lab = Lab(theme, is_live=False)
    lab.feed(3)
    shoot(lab.panel, "accuracy-recording", 900, 500)


def test_pictures_of_the_measurement(theme: Theme, shoot: Shoot) -> None:
    lab = run_lab(theme, *THREE, repeats=2, **{"length.time": 120})
    panel = lab.panel
    panel.start()
    shoot(panel, "accuracy-set-load", 1280, 720)
    panel.begin()
    shoot(panel, "accuracy-settling", 1280, 720)
    for _ in range(70):
        lab.feed(1, 0.4)
        panel.on_tick()
    shoot(panel, "accuracy-measuring", 1280, 720)
    shoot(panel, "accuracy-measuring-narrow-200", 620, 480, 2.0)
    panel.run_view.stop.click()
    shoot(panel, "accuracy-why", 900, 500)
    panel.break_off("clamp fell off")
    shoot(panel, "accuracy-broken-off", 1280, 720)
    panel.begin()
    lab.feed(250, 0.4)
    panel.begin()
    lab.feed(20, 0.4)
    panel.on_tick()
    shoot(panel, "accuracy-second-point", 1280, 720)


def test_pictures_of_results(theme: Theme, shoot: Shoot) -> None:
    for name, error, width, height, scale in (
        ("pass", 0.1, 1280, 720, 1.0),
        ("fail", 3.0, 1280, 720, 1.0),
        ("undecided-narrow-200", 0.95, 620, 480, 2.0),
    ):
        lab = run_lab(theme, title="DCBM 4711, incoming inspection")
        lab.panel.start()
        lab.panel.begin()
        lab.feed(610, error)
        assert not lab.panel.is_running
        shoot(lab.panel, f"accuracy-{name}", width, height, scale)
