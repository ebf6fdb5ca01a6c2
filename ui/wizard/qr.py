"""A QR code with what is to be entered in a device."""

from __future__ import annotations

from typing import Final

import segno
from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

QUIET: Final = 4  # modules around it that stay light (ISO/IEC 18004)
LINES: Final = 8  # as high as so many lines of text


class QrView(QWidget):
    """Dark on light in every theme: cameras of devices do not read the reverse."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[bytes] = []
        self.text = ""
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def set_text(self, text: str) -> None:
        """Show ``text``."""
        self.text = text
        self._rows = [bytes(row) for row in segno.make(text, error="m", micro=False).matrix]
        self.setAccessibleName(self.tr("QR code of {text}").format(text=text))
        self.setToolTip(text)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        modules = len(self._rows) + 2 * QUIET
        each = max(3, -(-LINES * self.fontMetrics().height() // modules))  # whole pixels, so that edges are sharp
        return QSize(modules * each, modules * each)

    def paintEvent(self, _event: QPaintEvent) -> None:
        if not self._rows:
            return
        painter = QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.white)
        each = min(self.width(), self.height()) / (len(self._rows) + 2 * QUIET)
        for y, row in enumerate(self._rows):
            for x, is_dark in enumerate(row):
                if is_dark:
                    square = QRectF((x + QUIET) * each, (y + QUIET) * each, each, each)
                    painter.fillRect(square, Qt.GlobalColor.black)
        painter.end()
