"""The dialogs of the lab and the list of recordings: what goes in, what comes out, and what they say on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QRadioButton,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.errors import ConfigError
from app.interaction_log.writer import LogWriter
from app.lab.curve_file import write_csv
from app.lab.derived import Derived
from app.lab.expression import Expression
from app.lab.series import SeriesKey, Times, Values, series_of
from app.lab.session import RECORDINGS, Note, Recording, recordings_to_json
from app.model.reading import Quantity, SampleSet, Severity
from app.model.records import Setting
from tests.ui.fakes import site
from tests.ui.log_fakes import until
from ui.dialogs import reference
from ui.dialogs.derived import DerivedDialog, likely_curve, new_id
from ui.dialogs.lab import CurveChoice, CurvePicker, Errand, LabDialog, TimeField
from ui.dialogs.note import NoteDialog
from ui.dialogs.reference import Alignment, LocalZone, ReferenceCurves, ReferenceDialog, Span
from ui.dialogs.threshold import ThresholdDialog
from ui.panels.recordings import Column, RecordingsPanel
from ui.theme import Theme, ThemeMode
from ui.widgets.chart.curve import Threshold, from_us

ZONE = timezone(timedelta(hours=2))
NOW_US = 1_765_432_100_000_000
DAY_US = 86_400_000_000
EARLIER_US = NOW_US - DAY_US
SECOND_US = 1_000_000

U = SeriesKey("lem-1", "voltage", "V")
I = SeriesKey("lem-1", "current", "A")  # noqa: E741 - as in the formula
P = SeriesKey("lem-1", "power", "kW")
P_REF = SeriesKey("ref-1", "power", "kW")
ODD = SeriesKey("lem-1", "odd", "blorg")
CURVES = (
    CurveChoice(U, "DC voltage", "LEM 4711"),
    CurveChoice(I, "DC current", "LEM 4711"),
    CurveChoice(P, "DC power", "LEM 4711"),
    CurveChoice(P_REF, "Power", "Reference 12"),
    CurveChoice(ODD, "Odd", "LEM 4711"),
)
LEVELS = {U: 400.0, I: 120.0, P: 48.0, P_REF: 50.0, ODD: 1.0}


def column(key: SeriesKey, end_us: int = NOW_US, count: int = 100) -> tuple[Times, Values]:
    """What is known of a curve; nothing of one that is not there."""
    if key not in LEVELS:
        return np.empty(0, np.int64), np.empty(0)
    times = end_us - 100_000 * np.arange(count, dtype=np.int64)[::-1]
    return times, np.full(count, LEVELS[key])


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def keep(qtbot: QtBot) -> Callable[[QDialog], list[Any]]:
    """Show a dialog, and collect what it hands over."""

    def show(dialog: QDialog) -> list[Any]:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        qtbot.addWidget(dialog)
        got: list[Any] = []
        dialog.taken.connect(got.append)  # type: ignore[attr-defined]
        dialog.show()
        return got

    return show


Keep = Callable[[QDialog], list[Any]]


def write(qtbot: QtBot, editor: QWidget, text: str) -> None:
    assert isinstance(editor, QLineEdit)
    editor.selectAll()
    qtbot.keyClicks(editor, text)  # type: ignore[no-untyped-call]


# ---------------------------------------------------------------- fields


def test_a_time_that_is_not_edited_stays_exact(qtbot: QtBot, theme: Theme) -> None:
    field = TimeField("Time", NOW_US + 123_456, ZONE, theme)
    qtbot.addWidget(field)
    assert field.t_us() == NOW_US + 123_456
    assert field.editor.text() == "2025-12-11 07:48:20.123"
    assert field.zone.text() == "UTC+02:00"
    field.editor.setDateTime(field.editor.dateTime().addSecs(3600))
    assert field.t_us() == NOW_US + 123_000 + 3600 * SECOND_US, "in the zone that is shown"
    field.set_us(0)
    assert (field.t_us(), field.editor.text()) == (0, "1970-01-01 02:00:00.000")


def test_a_curve_is_found_by_a_part_of_its_name(qtbot: QtBot) -> None:
    picker = CurvePicker("Curve")
    qtbot.addWidget(picker)
    picker.set_choices([(one.key, one.text) for one in CURVES])
    assert picker.key() is None
    picker.setEditText("dc CURRENT (a) of lem 4711")
    assert picker.key() == I
    picker.setEditText("dc")
    assert picker.key() is None, "a part is no choice yet"
    completer = picker.completer()
    assert completer is not None
    completer.setCompletionPrefix("refer")
    assert completer.currentCompletion() == "Power (kW) of Reference 12"
    picker.set_key(U)
    picker.set_choices([(U, "the same, by another name"), (P, "P")])
    assert picker.key() == U


def test_an_errand_that_was_dropped_says_nothing(qtbot: QtBot) -> None:
    owner, gate, said = QWidget(), threading.Event(), list[object]()
    qtbot.addWidget(owner)
    dropped = Errand(lambda: gate.wait(30), said.append, said.append, owner)
    dropped.drop()
    gate.set()
    Errand(lambda: threading.current_thread() is threading.main_thread(), said.append, said.append, owner)
    qtbot.waitUntil(until(lambda: said == [False]))

    def fail() -> None:
        raise ConfigError("is wrong", file="x.csv")

    failures: list[object] = []
    Errand(fail, said.append, lambda fault: failures.append(str(fault)), owner)
    qtbot.waitUntil(until(lambda: failures == ["x.csv: is wrong"]))
    qtbot.waitUntil(until(lambda: not Errand.under_way))
    assert said == [False]


# ---------------------------------------------------------------- note


def test_a_new_note(qtbot: QtBot, theme: Theme, keep: Keep) -> None:
    dialog = NoteDialog(theme, Note(id=7, t_us=NOW_US + 5, text=""), [("lem-1", "LEM 4711")], zone=ZONE)
    got = keep(dialog)
    assert not dialog.go.isEnabled()
    assert "a text" in dialog.missing.text()
    assert not dialog.remove.isVisible()
    assert not dialog.text.error.isVisible(), "nobody is accused before the first letter"
    editor = dialog.text.editor
    assert isinstance(editor, QPlainTextEdit)
    qtbot.keyClicks(editor, " contactor closed ")  # type: ignore[no-untyped-call]
    dialog.device.set_value("lem-1")
    dialog.go.click()
    assert got == [Note(id=7, t_us=NOW_US + 5, text="contactor closed", device="lem-1")]


def test_a_note_is_changed_or_removed(qtbot: QtBot, theme: Theme, keep: Keep) -> None:
    note = Note(id=7, t_us=NOW_US, text="seen", device="gone-1")
    dialog = NoteDialog(theme, note, [("lem-1", "LEM 4711")], zone=ZONE)
    got = keep(dialog)
    assert dialog.note() == note, "also on a device that was removed"
    dialog.text.set_value("x" * 10_001)
    assert "10000" in dialog.text.error.text()
    assert not dialog.go.isEnabled()
    with qtbot.waitSignal(dialog.removed) as removed:
        dialog.remove.click()
    assert removed.args == [7]
    assert got == []


# ---------------------------------------------------------------- threshold


def test_a_threshold_from_the_chart(qtbot: QtBot, theme: Theme, keep: Keep) -> None:
    dialog = ThresholdDialog(theme, CURVES, unit="V", value=400.123456789)
    got = keep(dialog)
    assert dialog.target.key() == "V"
    assert dialog.value.raw() == "400.12", "as exactly as was pointed"
    assert dialog.value.title.text() == "Value (V)"
    write(qtbot, dialog.value.editor, "400")
    write(qtbot, dialog.hysteresis.editor, "2.5")
    text = "Every curve in V: a warning as soon as a value is above 400 V, over when one is 397.5 V or less."
    assert dialog.sentence.text() == text
    dialog.way.set_value("below")
    assert "below 400 V, over when one is 402.5 V or more" in dialog.sentence.text()
    dialog.severity.set_value("bad")
    dialog.text.set_value("Too low")
    dialog.go.click()
    assert got == [Threshold("V", 400.0, "Too low", Severity.BAD, False, 2.5, None)]


def test_a_threshold_of_one_curve_is_handed_back_as_it_was(theme: Theme, keep: Keep) -> None:
    gone = SeriesKey("gone-1", "voltage", "V")
    threshold = Threshold("V", 0.1 + 0.2, "Limit", Severity.INFO, False, 1e-3, gone)
    dialog = ThresholdDialog(theme, CURVES, threshold=threshold)
    got = keep(dialog)
    dialog.go.click()
    assert got == [threshold]


@pytest.mark.parametrize(("value", "hysteresis"), [("abc", "0"), ("", "0"), ("nan", "0"), ("5", "-1"), ("5", "x")])
def test_a_threshold_needs_numbers(theme: Theme, keep: Keep, value: str, hysteresis: str) -> None:
    dialog = ThresholdDialog(theme, CURVES, unit="V", value=1.0)
    got = keep(dialog)
    dialog.value.set_value(value)
    dialog.hysteresis.set_value(hysteresis)
    dialog.value.edited.emit()
    assert not dialog.go.isEnabled()
    assert dialog.sentence.text() == ""
    dialog._take()
    assert got == []
    assert dialog.value.error.text() or dialog.hysteresis.error.text()


def test_a_threshold_needs_its_curves(theme: Theme, keep: Keep) -> None:
    dialog = ThresholdDialog(theme, CURVES)
    keep(dialog)
    dialog.value.set_value("1")
    assert not dialog.go.isEnabled()
    assert "which curves" in dialog.missing.text()
    dialog.target.set_key(P)
    assert dialog.go.isEnabled()
    assert dialog.sentence.text().startswith("DC power (kW) of LEM 4711: ")


# ---------------------------------------------------------------- derived quantity


@pytest.fixture
def derive(qtbot: QtBot, theme: Theme, keep: Keep) -> Callable[..., tuple[DerivedDialog, list[Any]]]:
    def make(text: str = "", name: str = "", columns: Any = None, **more: Any) -> tuple[DerivedDialog, list[Any]]:
        dialog = DerivedDialog(theme, CURVES, columns or column, zone=ZONE, **more)
        got = keep(dialog)
        if name:
            write(qtbot, dialog.name.editor, name)
        if text:
            write(qtbot, dialog.line, text)
        qtbot.waitUntil(until(lambda: dialog._has_units))
        dialog.check()
        return dialog, got

    return make


Derive = Callable[..., tuple[DerivedDialog, list[Any]]]


def test_likely_curves() -> None:
    assert likely_curve("U", CURVES) == U
    assert likely_curve("I_L1", CURVES) == I
    assert likely_curve("P", CURVES) is None, "two of them are in kW"
    assert likely_curve("voltage", CURVES) == U
    assert likely_curve("zebra", CURVES) is None


def test_ids() -> None:
    assert new_id("P DC, total", ()) == "p_dc_total"
    assert new_id("P", ("p", "p_2")) == "p_3"
    assert new_id("²", ()) != ""


def test_a_new_derived_quantity(derive: Derive) -> None:
    dialog, got = derive("U * I", "P dc", taken_ids=("p_dc",))
    assert dialog.picker("U").key() == U
    assert dialog.picker("I").key() == I
    assert "comes of the curves: W" in dialog.unit_note.text()
    assert "48000.000 W, 2025-12-11 07:48:20.000 UTC+02:00" in dialog.preview.text()
    dialog.unit.set_value("kW")
    dialog.digits.set_value(1)
    dialog.check()
    assert "48.0 kW" in dialog.preview.text()
    dialog.go.click()
    (made,) = got
    assert made == Derived("p_dc_2", "P dc", Expression.parse("U * I"), {"U": U, "I": I}, "kW", 1)


def test_a_derived_quantity_is_changed(derive: Derive, qtbot: QtBot) -> None:
    gone = SeriesKey("gone-1", "power", "kW")
    before = Derived("error", "Error", Expression.parse("error(P, P_ref)"), {"P": P, "P_ref": gone}, "", 2)
    dialog, got = derive(derived=before)
    assert dialog.picker("P_ref").key() == gone, "a curve that is not there now can be kept"
    dialog.go.click()
    assert got == [before]
    dialog.show()
    dialog.picker("P_ref").set_key(P_REF)
    dialog.check()
    assert "-4.00 %" in dialog.preview.text()
    write(qtbot, dialog.line, "error(P, P_other)")
    dialog.check()
    assert "the curve of P_other" in dialog.missing.text()
    assert not dialog.go.isEnabled()
    write(qtbot, dialog.line, "error(P, P_ref)")
    dialog.check()
    assert dialog.picker("P_ref").key() == P_REF, "what was chosen for a name is remembered"


def test_what_is_wrong_stands_under_the_expression(derive: Derive) -> None:
    dialog, got = derive("mean(U * I, 10", "P")
    assert "expected" in dialog.expression_error.text().casefold()
    assert dialog.line.wrong_at() == len("mean(U * I, 10")
    assert dialog.line.accessibleDescription() == dialog.expression_error.text()
    assert not dialog.go.isEnabled()
    dialog._take()
    assert got == []


def test_units_that_do_not_go_together(derive: Derive) -> None:
    dialog, _got = derive("abs( U )+ I", "X")
    assert "A cannot be added to V" in dialog.expression_error.text()
    assert dialog.line.wrong_at() == 8, "the sign, as it was typed"
    dialog.line.setText("U * I")
    dialog.unit.set_value("A")
    dialog.check()
    assert dialog.expression_error.text() == ""
    assert dialog.line.wrong_at() == -1
    assert "cannot be turned into A" in dialog.unit.error.text()
    assert not dialog.go.isEnabled()
    dialog.unit.set_value("kW")
    dialog.check()
    assert dialog.go.isEnabled()
    assert not dialog.unit.error.isVisible()


def test_an_unknown_unit_is_said_and_allowed(derive: Derive) -> None:
    dialog, _got = derive("2 * odd", "Twice")
    assert "blorg" in dialog.unit_note.text()
    assert dialog.go.isEnabled()


def test_a_derived_quantity_without_values(derive: Derive) -> None:
    dialog, _got = derive("U * I", "P", columns=lambda key: None if key == I else column(key))
    assert dialog.preview.text() == "No value yet: there is no sample of DC current (A) of LEM 4711."
    assert dialog.go.isEnabled(), "it may come later"
    dialog, _got = derive("log10(0 - U)", "X")
    assert "not a number" in dialog.preview.text()


def test_the_preview_follows_what_comes(derive: Derive, monkeypatch: pytest.MonkeyPatch) -> None:
    dialog, _got = derive("2 * U", "X")
    assert "800.000 V" in dialog.preview.text()
    monkeypatch.setitem(LEVELS, U, 410.0)
    dialog._live.timeout.emit()
    assert "820.000 V" in dialog.preview.text()
    dialog.hide()
    assert not dialog._live.isActive()


def test_functions_are_written_at_the_cursor(derive: Derive, qtbot: QtBot) -> None:
    dialog, _got = derive("U", "X")
    dialog.line.selectAll()
    dialog.insert_function("mean(x, 10 s)")
    assert dialog.line.text() == "mean(U, 10 s)"
    dialog.line.setCursorPosition(len(dialog.line.text()))
    dialog.line.insert(" - ")
    dialog.insert_function("hold(x)")
    assert dialog.line.selectedText() == "x", "typing goes on there"
    for text, _words in dialog._functions():
        Expression.parse(text)
    dialog.insert.click()
    menu = dialog.findChild(QMenu, "derived.functions")
    assert menu is not None
    assert len(menu.actions()) == len(dialog._functions())
    menu.close()


# ---------------------------------------------------------------- reference


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "earlier.csv"
    write_csv(path, [series_of(one.key, *column(one.key, EARLIER_US), one.title) for one in CURVES[:4]])
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "session.mwk"
    voltage, current = Quantity("voltage", "V", "DC voltage"), Quantity("current", "A")
    recording = Recording(id=1, name="Charge 1", start_us=EARLIER_US, end_us=EARLIER_US + SECOND_US, keys=(U,))
    with LogWriter(path) as writer:
        writer.put(*site(), Setting(key=RECORDINGS, value=recordings_to_json([recording])))
        for n in range(50):
            values = ((voltage, Decimal(400 + n)), (current, Decimal(n)))
            at = from_us(EARLIER_US + n * 100_000)
            writer.put(SampleSet(device="lem-1", received=at, values=values))
        writer.flush()
    return path


@pytest.fixture
def refer(qtbot: QtBot, theme: Theme, keep: Keep) -> Iterator[Callable[..., tuple[ReferenceDialog, list[Any]]]]:
    dialogs: list[ReferenceDialog] = []

    def make(path: Path, **more: Any) -> tuple[ReferenceDialog, list[Any]]:
        dialog = ReferenceDialog(theme, NOW_US, path=path, zone=ZONE, **more)
        dialogs.append(dialog)
        return dialog, keep(dialog)

    yield make
    for dialog in dialogs:
        dialog.reject()


Refer = Callable[..., tuple[ReferenceDialog, list[Any]]]


def check_all(dialog: ReferenceDialog) -> None:
    for row in range(dialog.curves.count()):
        dialog.curves.item(row).setCheckState(Qt.CheckState.Checked)


def test_curves_of_a_csv_file(refer: Refer, csv_file: Path, qtbot: QtBot) -> None:
    dialog, got = refer(csv_file)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    assert dialog.box.sentences.text() == "earlier.csv holds 4 curves of 2 devices."
    assert "DC voltage (V): 100 samples over 9 s" in dialog.preview.text()
    assert "no gap" in dialog.preview.text()
    assert dialog.alignment() is Alignment.EDGE
    assert "On the chart from 2025-12-11 07:48:20.000 UTC+02:00" in dialog.preview.text()
    check_all(dialog)
    dialog.go.click()
    (chosen,) = got
    assert isinstance(chosen, ReferenceCurves)
    assert [(one.key.device, one.name, one.key.unit) for one in chosen.series] == [
        ("lem-1", "DC voltage", "V"),
        ("lem-1", "DC current", "A"),
        ("lem-1", "DC power", "kW"),
    ]
    assert chosen.source == "earlier.csv"
    assert int(chosen.series[0].times[0]) + chosen.shift_us == NOW_US


def test_where_a_reference_stands(refer: Refer, csv_file: Path, qtbot: QtBot) -> None:
    dialog, got = refer(csv_file)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    dialog.clock.setChecked(True)
    assert "from 2025-12-10 07:48:10.100" in dialog.preview.text()
    dialog.hand.setChecked(True)
    assert dialog.shift.raw() == "0", "from where it stood"
    write(qtbot, dialog.shift.editor, "x")
    assert "number of seconds" in dialog.missing.text()
    assert not dialog.go.isEnabled()
    write(qtbot, dialog.shift.editor, "86400.25")
    dialog.go.click()
    assert [one.shift_us for one in got] == [DAY_US + 250_000]


def test_a_range_by_hand(refer: Refer, csv_file: Path, qtbot: QtBot) -> None:
    dialog, _got = refer(csv_file)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    dialog.span.set_key(Span.HAND)
    assert dialog.since.isVisible()
    assert dialog.until.t_us() == EARLIER_US
    dialog.since.editor.setDateTime(dialog.since.editor.dateTime().addSecs(5))
    assert "DC voltage (V): 50 samples" in dialog.preview.text()
    dialog.since.editor.setDateTime(dialog.since.editor.dateTime().addSecs(60))
    assert "later than the start" in dialog.missing.text()
    assert not dialog.go.isEnabled()
    dialog.until.editor.setDateTime(dialog.since.editor.dateTime().addSecs(60))
    assert "There is no sample in this range" in dialog.preview.text()
    assert not dialog.go.isEnabled()


def test_times_from_a_start_have_no_clock(refer: Refer, tmp_path: Path, qtbot: QtBot) -> None:
    path = tmp_path / "bench.csv"
    path.write_text("elapsed (s);U [V]\n0,0;400,5\n0,5;401,5\n1,0;402,5\n")
    dialog, got = refer(path)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    assert not dialog.clock.isEnabled()
    assert "start" in dialog.box.sentences.text()
    assert "U (V): 3 samples over 1 s, no gap." in dialog.preview.text()
    dialog.go.click()
    assert got[0].shift_us == NOW_US


def test_a_zone_for_times_that_name_none(refer: Refer, tmp_path: Path, qtbot: QtBot) -> None:
    path = tmp_path / "zoneless.csv"
    path.write_text("time,U [V]\n2026-05-04T12:00:00,1\n2026-05-04T12:00:01,2\n")
    dialog, _got = refer(path)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    assert "from 2026-05-04 12:00:00.000 UTC+02:00" in dialog.preview.text()
    dialog.file_zone.set_value("utc")
    qtbot.waitUntil(until(dialog.go.isEnabled))
    assert "from 2026-05-04 14:00:00.000 UTC+02:00" in dialog.preview.text()
    summer = from_us(NOW_US).replace(tzinfo=None, month=7)
    assert LocalZone().utcoffset(summer) == summer.astimezone().utcoffset()


def test_files_that_cannot_be_read(refer: Refer, tmp_path: Path, qtbot: QtBot) -> None:
    dialog, got = refer(tmp_path / "none.csv")
    assert "There is no file" in dialog.file.error.text()
    broken = tmp_path / "broken.csv"
    broken.write_text("time,U [V]\n2026-05-04T12:00:00Z,1\n2026-05-04T12:00:01Z,what\n")
    write(qtbot, dialog.file.editor, str(broken))
    qtbot.waitUntil(until(lambda: "line 3" in dialog.box.sentences.text()))
    assert "U [V]" in dialog.box.sentences.text()
    assert not dialog.choice.isVisible()
    foreign = tmp_path / "foreign.mwk"
    foreign.write_text("no workspace at all")
    write(qtbot, dialog.file.editor, str(foreign))
    qtbot.waitUntil(until(lambda: "foreign.mwk" in dialog.box.sentences.text() and not dialog.box.stop.isVisible()))
    assert not dialog.go.isEnabled()
    assert got == []


def test_reading_can_be_stopped(refer: Refer, csv_file: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    look = reference.look_into_csv

    def slow(path: Path, zone: Any) -> Any:
        assert gate.wait(30)
        return look(path, zone)

    monkeypatch.setattr(reference, "look_into_csv", slow)
    dialog, _got = refer(csv_file)
    assert "Reading earlier.csv" in dialog.box.sentences.text()
    dialog.box.stop.click()
    gate.set()
    qtbot.waitUntil(until(lambda: not Errand.under_way))
    assert "was stopped" in dialog.box.sentences.text()
    assert not dialog.choice.isVisible()


def test_curves_of_a_workspace(refer: Refer, workspace: Path, qtbot: QtBot) -> None:
    dialog, got = refer(workspace)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    assert dialog.box.sentences.text() == "session.mwk holds 2 curves of one device."
    assert dialog.device.currentText() == "LEM 4711"
    check_all(dialog)
    qtbot.waitUntil(until(lambda: dialog.go.isEnabled() and "DC voltage (V): 50 samples" in dialog.preview.text()))
    assert "current (A): 50 samples" in dialog.preview.text()
    dialog.clock.setChecked(True)
    dialog.go.click()
    (chosen,) = got
    assert chosen.shift_us == 0
    voltage = next(one for one in chosen.series if one.key == U)
    assert voltage.values.tolist() == [400.0 + n for n in range(50)]
    assert voltage.times[0] == EARLIER_US


def test_a_recording_of_a_workspace(refer: Refer, workspace: Path, qtbot: QtBot) -> None:
    wanted = Recording(id=1, name="Charge 1", start_us=0)
    dialog, got = refer(workspace, recording=wanted)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    assert dialog.span.currentText().startswith("Recording Charge 1, 2025-12-10 07:48:20")
    dialog.go.click()
    assert [(one.key, len(one)) for one in got[0].series] == [(U, 11)], "its curves, both ends included"


def test_no_curve_is_chosen(refer: Refer, csv_file: Path, qtbot: QtBot) -> None:
    dialog, _got = refer(csv_file)
    qtbot.waitUntil(until(dialog.go.isEnabled))
    dialog.curves.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert "at least one curve" in dialog.missing.text()
    assert not dialog.go.isEnabled()
    dialog.device.setEditText("nothing")
    assert "a device" in dialog.missing.text()


# ---------------------------------------------------------------- recordings


RECORDED = (
    Recording(id=1, name="Charge 1", start_us=EARLIER_US, end_us=EARLIER_US + 10 * SECOND_US, note="two\nlines"),
    Recording(id=2, name="Heating", start_us=EARLIER_US, end_us=EARLIER_US + 3600 * SECOND_US, keys=(U, I)),
    Recording(id=3, name="Night", start_us=NOW_US - 75 * SECOND_US),
)


class Clock:
    def __init__(self) -> None:
        self.us = NOW_US

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def panel(qtbot: QtBot, theme: Theme, clock: Clock) -> RecordingsPanel:
    panel = RecordingsPanel(theme, now_us=clock, zone=ZONE)
    qtbot.addWidget(panel)
    panel.resize(900, 300)
    panel.show()
    return panel


@pytest.fixture
def changes(panel: RecordingsPanel) -> list[tuple[Recording, ...]]:
    got: list[tuple[Recording, ...]] = []
    panel.changed.connect(got.append)
    return got


Changes = list[tuple[Recording, ...]]


def cells(panel: RecordingsPanel, row: int) -> list[str]:
    return [str(panel.model.index(row, column).data()) for column in Column]


def test_the_list_of_recordings(panel: RecordingsPanel, changes: Changes, clock: Clock) -> None:
    assert "Start recording" in panel.empty_text()
    tester = QAbstractItemModelTester(panel.model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    panel.set_recordings(RECORDED)
    assert panel.empty_text() == ""
    assert cells(panel, 0) == ["Night", "2025-12-11 07:47:05.000", "recording now", "00:01:15", "all", ""]
    assert cells(panel, 1)[3:] == ["01:00:00", "2", ""]
    assert cells(panel, 2)[3:] == ["10.000 s", "all", "two lines"]
    clock.us += 5 * SECOND_US
    panel._tick.timeout.emit()
    assert cells(panel, 0)[3] == "00:01:20"
    assert panel._tick.isActive()
    panel.hide()
    assert not panel._tick.isActive()
    assert changes == [], "what was set from outside is no change"
    tester.deleteLater()


def test_a_recording_is_started_and_stopped(panel: RecordingsPanel, changes: Changes, clock: Clock) -> None:
    panel.set_recordings(RECORDED[:2])
    assert not panel.stop_button.isEnabled()
    panel.start_button.click()
    assert panel.current() == Recording(id=3, name="Recording 3", start_us=NOW_US)
    panel.set_curves((U, P))
    panel.only_shown.setChecked(True)
    panel.name.setText("  Load step ")
    panel.start_button.click()
    assert panel.name.text() == ""
    assert panel.recordings[-1] == Recording(id=4, name="Load step", start_us=NOW_US, keys=(U, P))
    clock.us += SECOND_US
    panel.choose(3)
    panel.stop_button.click()
    assert panel.recordings[2].end_us == NOW_US + SECOND_US, "the selected one ends"
    panel.stop_button.click()
    assert panel.recordings[3].end_us == NOW_US + SECOND_US, "then the other"
    assert not panel.stop_button.isEnabled()
    assert [len(one) for one in changes] == [3, 4, 4, 4]
    assert changes[-1] == panel.recordings


def test_names_and_remarks_are_edited_in_place(panel: RecordingsPanel, changes: Changes, qtbot: QtBot) -> None:
    panel.set_recordings(RECORDED)
    panel.choose(2)
    qtbot.keyClick(panel.list, Qt.Key.Key_F2)  # type: ignore[no-untyped-call]
    editor = panel.list.findChild(QLineEdit)
    assert editor is not None
    write(qtbot, editor, "Oven")
    qtbot.keyClick(editor, Qt.Key.Key_Return)  # type: ignore[no-untyped-call]
    qtbot.waitUntil(until(lambda: panel.recordings[1].name == "Oven"))
    panel.model.setData(panel.model.index(1, Column.REMARK), "door open")
    assert panel.recordings[1].note == "door open"
    assert not panel.model.setData(panel.model.index(1, Column.NAME), "  ")
    assert "needs a name" in panel.said.text()
    assert panel.said_box.isVisible()
    assert not panel.model.setData(panel.model.index(1, Column.NAME), "x" * 201)
    assert "200" in panel.said.text()
    assert len(changes) == 2
    assert panel.current() == panel.recordings[1], "the selection stays"


def test_a_removal_can_be_undone(panel: RecordingsPanel, changes: Changes, qtbot: QtBot) -> None:
    panel.set_recordings(RECORDED)
    panel.choose(2)
    panel.list.setFocus()
    with qtbot.waitSignal(panel.removed) as removed:
        panel.buttons["remove"].click()
    assert removed.args == [RECORDED[1], 1]
    assert [one.id for one in panel.recordings] == [1, 3]
    assert panel.said.text() == "Heating was removed. Its samples stay in the log."
    panel.remove()
    assert [one.id for one in panel.recordings] == [3]
    panel.undo_button.click()
    panel.undo()
    assert panel.recordings == RECORDED, "each in its place"
    assert panel.current() == RECORDED[1]
    panel.undo()
    panel.put_back(RECORDED[1], 1)
    assert panel.recordings == RECORDED, "not twice"
    assert changes[-1] == RECORDED


def test_what_is_asked_of_the_window(panel: RecordingsPanel, qtbot: QtBot) -> None:
    panel.set_recordings(RECORDED)
    assert not any(button.isEnabled() for button in panel.buttons.values()), "none is selected"
    asked: list[tuple[str, Recording]] = []
    panel.goToWanted.connect(lambda one: asked.append(("go to", one)))
    panel.exportWanted.connect(lambda one: asked.append(("export", one)))
    panel.referenceWanted.connect(lambda one: asked.append(("reference", one)))
    panel.choose(3)
    assert not panel.buttons["reference"].isEnabled(), "it has not ended"
    panel.choose(1)
    panel.list.setFocus()
    qtbot.keyClick(panel.list, Qt.Key.Key_Return)  # type: ignore[no-untyped-call]
    panel.buttons["export"].click()
    panel.buttons["reference"].click()
    assert asked == [("go to", RECORDED[0]), ("export", RECORDED[0]), ("reference", RECORDED[0])]


def test_nothing_is_changed_where_that_is_impossible(panel: RecordingsPanel, changes: Changes) -> None:
    panel.set_why_not("This log was opened for reading.")
    assert panel.empty_text() == "This log was opened for reading."
    panel.set_recordings(RECORDED)
    panel.choose(3)
    assert panel.why.isVisible()
    for do in (panel.start, panel.stop, panel.remove, panel.rename):
        do()
    assert not panel.model.setData(panel.model.index(0, Column.NAME), "Other")
    assert not panel.start_button.isEnabled()
    assert not panel.stop_button.isEnabled()
    assert panel.buttons["go_to"].isEnabled()
    assert panel.recordings == RECORDED
    assert changes == []


# ---------------------------------------------------------------- all of them


def test_every_field_has_a_name_and_can_be_reached(
    refer: Refer, csv_file: Path, theme: Theme, keep: Keep, qtbot: QtBot
) -> None:
    dialogs: list[QDialog] = [
        NoteDialog(theme, Note(id=1, t_us=NOW_US, text="x"), [("lem-1", "LEM 4711")], zone=UTC),
        ThresholdDialog(theme, CURVES, unit="V", value=1.0),
        DerivedDialog(theme, CURVES, column, zone=UTC),
    ]
    for dialog in dialogs:
        keep(dialog)
    dialogs.append(refer(csv_file)[0])
    for dialog in dialogs:
        # not by nextInFocusChain: PySide would own the parts of Qt's own widgets, and delete them
        first = dialog.focusWidget()
        reached = [first]
        while (here := dialog.focusWidget()) is not None and len(reached) < 50:
            qtbot.keyClick(here, Qt.Key.Key_Tab)  # type: ignore[no-untyped-call]
            if dialog.focusWidget() is first:
                break
            reached.append(dialog.focusWidget())
        fields = [
            one
            for one in (*dialog.findChildren(QLineEdit), *dialog.findChildren(QAbstractButton))
            if one.isVisible() and one.isEnabled() and one.focusPolicy() & Qt.FocusPolicy.TabFocus
        ]
        assert len(fields) > 2
        for field in (*fields, *(one for one in reached if one is not None)):
            assert name_of(field), f"{dialog.objectName()}: {field}"
        for field in fields:
            is_part = isinstance(field.parentWidget(), (QComboBox, QAbstractSpinBox)) or isinstance(field, QRadioButton)
            assert is_part or field in reached, f"{dialog.objectName()}: {field}"


def name_of(field: QWidget) -> str:
    """What a screen reader says of it; a part of a field has the field's name."""
    above = field.parentWidget()
    if isinstance(field, QAbstractButton) and field.text():
        return field.text()
    return field.accessibleName() or (above.accessibleName() if above is not None else "")


@pytest.mark.parametrize("mode", [ThemeMode.LIGHT, ThemeMode.DARK])
def test_pictures(
    qtbot: QtBot, qapp: QApplication, keep: Keep, csv_file: Path, artifacts: Path, mode: ThemeMode
) -> None:
    palette, style = qapp.palette(), qapp.style().name()
    theme = Theme(qapp, mode)
    theme.install()
    try:
        error = Derived("e", "Error", Expression.parse("error(P, P_ref)"), {"P": P, "P_ref": P_REF})
        derived = DerivedDialog(theme, CURVES, column, zone=ZONE, derived=error)
        chosen = ReferenceDialog(theme, NOW_US, path=csv_file, zone=ZONE) if mode is ThemeMode.DARK else None
        pictures: dict[str, LabDialog] = {
            "note": NoteDialog(theme, Note(id=1, t_us=NOW_US, text="Contactor closed by hand."), zone=ZONE),
            "threshold": ThresholdDialog(theme, CURVES, threshold=Threshold("V", 400.0, "Limit", key=U)),
            "derived": derived,
            "reference": chosen or ReferenceDialog(theme, NOW_US, zone=ZONE),
        }
        for dialog in pictures.values():
            keep(dialog)
        qtbot.waitUntil(until(lambda: derived._has_units))
        if chosen is not None:
            qtbot.waitUntil(until(chosen.go.isEnabled))
            chosen.file.set_value(csv_file.name)  # no folder of this machine in a picture
        bars = [dialog.area.horizontalScrollBar() for dialog in pictures.values()]
        qtbot.waitUntil(until(lambda: not any(bar.isVisible() for bar in bars)))
        for name, dialog in pictures.items():
            picture = dialog.grab()
            assert picture.save(str(artifacts / f"lab-{name}-{mode.value}.png"))
            dialog.reject()
        panel = RecordingsPanel(theme, now_us=lambda: NOW_US, zone=ZONE)
        qtbot.addWidget(panel)
        panel.resize(900, 260)
        panel.set_recordings(RECORDED)
        panel.show()
        assert panel.grab().save(str(artifacts / f"lab-recordings-{mode.value}.png"))
    finally:
        qapp.styleHints().unsetColorScheme()
        qapp.setStyle(style)
        qapp.setPalette(palette)
