"""Values under the pointer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter
from PySide6.QtWidgets import QFrame, QWidget

from ui.theme import Role, space

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


class Readout(QFrame):
    """Values of all curves at the pointer. Lets the mouse through."""

    def __init__(self, chart: LiveChart, parent: QWidget) -> None:
        super().__init__(parent)
        self._chart = chart
        self._title = ""
        self._rows: list[tuple[QColor | None, str, str]] = []
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide()

    @property
    def text(self) -> str:
        """What it says, for tests and screen readers."""
        return "\n".join((self._title, *(f"{name}\t{value}" for _, name, value in self._rows)))

    def say(self, title: str, rows: list[tuple[QColor | None, str, str]]) -> None:
        self._title, self._rows = title, rows
        metrics, numbers = QFontMetricsF(self.font()), QFontMetricsF(self._chart.number_font)
        self._line = math.ceil(max(metrics.height(), numbers.height())) + 2
        names = max((metrics.horizontalAdvance(name) for _, name, _ in rows), default=0.0)
        values = max((numbers.horizontalAdvance(value) for _, _, value in rows), default=0.0)
        width = max(names + values + space(13), metrics.horizontalAdvance(title) + space(4))
        self.resize(math.ceil(width), self._line * (len(rows) + 1) + space(2))
        self.setAccessibleName(self.text)
        self.update()

    def paintEvent(self, event: object) -> None:
        theme = self._chart.theme
        painter = QPainter(self)
        painter.setPen(theme.colour(Role.LINE))
        painter.setBrush(theme.colour(Role.TOOLTIP))
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        text = theme.colour(Role.TOOLTIP_TEXT)
        painter.setPen(text)
        inner = QRectF(space(2), space(1), self.width() - space(4), self._line)
        painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter, self._title)
        for colour, name, value in self._rows:
            inner.translate(0, self._line)
            if colour is not None:
                painter.fillRect(QRectF(inner.left(), inner.center().y() - 1.5, space(3), 3), colour)
            painter.setFont(self.font())
            painter.drawText(inner.adjusted(space(4), 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, name)
            painter.setFont(self._chart.number_font)
            painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, value)
        painter.end()
