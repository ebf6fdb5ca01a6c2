"""The words around a plot: the line below it, and the page that stands there while there is nothing to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from ui.theme import Role, Theme, space

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


def _dim(label: QLabel, theme: Theme) -> None:
    palette = label.palette()
    palette.setColor(label.foregroundRole(), theme.colour(Role.DIMMED))
    label.setPalette(palette)


class Foot(QWidget):
    """Which clock the axis shows, and where the cursors are."""

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._cursors = QLabel()
        self._cursors.setFont(chart.number_font)
        self._clock = QLabel()
        self._clock.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        row = QHBoxLayout(self)
        row.setContentsMargins(space(2), space(1), space(2), space(1))
        row.setSpacing(space(3))
        row.addWidget(self._clock, 1)
        row.addWidget(self._cursors)

    def wear(self, theme: Theme) -> None:
        _dim(self._clock, theme)

    def show_clock(self) -> None:
        self._clock.setText(self._chart.clock_text())

    def show_cursors(self) -> None:
        """Their times, and how far they are apart."""
        chart, cursors = self._chart, self._chart.cursors
        spacing = min(1.0, chart.span_us / 1e9)
        parts = [f"{which} {chart.time_text(t_us, spacing)}" for which, t_us in sorted(cursors.items())]
        if len(cursors) == 2:
            parts.append(f"B\N{MINUS SIGN}A {(cursors['B'] - cursors['A']) / 1e6:.6g} s")
        self._cursors.setText("   ".join(parts))


class EmptyPage(QLabel):
    """Says how to fill the chart."""

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart.tr("Drag a quantity here from the device tree,\nor double-click one there to chart it."))
        self.setObjectName("empty")
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setWordWrap(True)

    def wear(self, theme: Theme) -> None:
        _dim(self, theme)
