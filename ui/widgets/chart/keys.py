"""The keys of a chart, while its plot or its list of curves has the focus."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QKeyCombination, Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QWidget

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


def install_keys(chart: LiveChart) -> None:
    """Everything the mouse does on the plot has a key there."""
    for widget in (chart.canvas, chart.tabs.curves_view):
        _install(widget, Qt.Key.Key_Space, chart.toggle_pause)
    _install(chart.tabs.curves_view, Qt.Key.Key_Delete, chart.remove_selected)
    shift, alt = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.AltModifier
    keys: tuple[tuple[Qt.Key | QKeyCombination, Callable[[], object]], ...] = (
        (Qt.Key.Key_Left, partial(chart.pan_time, -0.1)),
        (Qt.Key.Key_Right, partial(chart.pan_time, 0.1)),
        (Qt.Key.Key_Plus, partial(chart.zoom_time, 0.8)),
        (Qt.Key.Key_Minus, partial(chart.zoom_time, 1.25)),
        (Qt.Key.Key_End, chart.follow),
        (Qt.Key.Key_F, chart.fit),
        (Qt.Key.Key_A, partial(chart.place_cursor, "A")),
        (Qt.Key.Key_B, partial(chart.place_cursor, "B")),
        (shift | Qt.Key.Key_Left, partial(chart.step_cursor, "A", -0.01)),
        (shift | Qt.Key.Key_Right, partial(chart.step_cursor, "A", 0.01)),
        (alt | Qt.Key.Key_Left, partial(chart.step_cursor, "B", -0.01)),
        (alt | Qt.Key.Key_Right, partial(chart.step_cursor, "B", 0.01)),
        (Qt.Key.Key_N, chart.ask_for_note),
    )
    for sequence, slot in keys:
        _install(chart.canvas, sequence, slot)


def _install(widget: QWidget, keys: Qt.Key | QKeyCombination, slot: Callable[[], object]) -> None:
    shortcut = QShortcut(QKeySequence(keys), widget, context=Qt.ShortcutContext.WidgetShortcut)
    shortcut.activated.connect(slot)
