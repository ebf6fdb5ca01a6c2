"""Bytes: what stands where, selecting, copying, and a megabyte without a pause."""

from __future__ import annotations

import time

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication, QPixmap
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from ui.theme import Role, Theme, ThemeMode
from ui.widgets.hex_view import ByteField, CopyAs, HexView

DATA = bytes(range(256))


@pytest.fixture
def view(qapp: QApplication, qtbot: QtBot) -> HexView:
    made = HexView(Theme(qapp, ThemeMode.LIGHT))
    qtbot.addWidget(made)
    made.resize(800, 300)
    made.show()
    made.set_bytes(DATA)
    return made


def test_copy_as_hex_and_text(view: HexView) -> None:
    view.select(0x41, 0x45)
    assert view.selection() == (0x41, 0x45)
    view.copy()
    assert QGuiApplication.clipboard().text() == "41 42 43 44"
    view.copy(CopyAs.TEXT)
    assert QGuiApplication.clipboard().text() == "ABCD"
    view.select(5, 5)
    assert view.text(CopyAs.HEX) == DATA.hex(" ")


def test_keyboard(view: HexView, qtbot: QtBot) -> None:
    view.setFocus()
    for _ in range(3):
        QTest.keyClick(view, Qt.Key.Key_Right)
    QTest.keyClick(view, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    assert view.selection() == (3, 5)
    QTest.keyClick(view, Qt.Key.Key_End, Qt.KeyboardModifier.ControlModifier)
    assert view.selection() == (255, 255)
    QTest.keyClick(view, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    assert view.selection() == (0, 256)
    QTest.keyClick(view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QGuiApplication.clipboard().text() == DATA.hex(" ")


def test_a_double_click_takes_the_field(view: HexView, qtbot: QtBot) -> None:
    view.set_fields([ByteField(0, 4, Role.HEX_FIELD_1, "head"), ByteField(4, 9, Role.HEX_FIELD_2, "length")])
    where = next(QPoint(x, 6) for x in range(0, 400, 3) if view.offset_at(QPoint(x, 6)) == 5)
    with qtbot.waitSignal(view.fieldActivated) as told:
        QTest.mouseDClick(view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert told.args == ["length"]
    assert view.selection() == (4, 9)


def test_a_drag_selects(view: HexView, qtbot: QtBot) -> None:
    points = {view.offset_at(QPoint(x, 6)): QPoint(x, 6) for x in range(0, 400)}
    QTest.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=points[2])
    QTest.mouseMove(view.viewport(), points[6])
    QTest.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=points[6])
    view.select(2, 7)
    assert view.text(CopyAs.HEX) == "02 03 04 05 06"


def test_fields_are_painted(view: HexView) -> None:
    plain = view.grab().toImage()
    view.set_fields([ByteField(0, 16, Role.HEX_FIELD_3, "head")])
    assert view.grab().toImage() != plain


def test_no_bytes_say_so(view: HexView) -> None:
    view.set_bytes(b"")
    blank = view.grab().toImage()
    view.set_placeholder("No bytes yet.")
    assert view.grab().toImage() != blank
    assert view.selection() == (0, 0)
    view.select(0, 5)
    assert view.text(CopyAs.HEX) == ""


def test_a_megabyte_costs_what_a_screen_does(view: HexView) -> None:
    picture = QPixmap(800, 300)

    def painted(data: bytes) -> float:
        view.set_bytes(data, [ByteField(0, len(data), Role.HEX_FIELD_1, "all")])
        times = []
        for _ in range(5):
            started = time.perf_counter()
            view.render(picture)
            times.append(time.perf_counter() - started)
        return min(times)

    small = painted(bytes(2048))
    large = painted(bytes(1 << 20))
    assert large < 3 * small + 0.002


def test_lines_follow_the_width(view: HexView) -> None:
    view.resize(360, 300)
    assert view.columns() == 8
    view.resize(800, 300)
    assert view.columns() == 16
    view.resize(1400, 300)
    assert view.columns() == 32
