"""A chart as a picture: image, PNG, SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QFontMetricsF, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from ui.theme import Role, space

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


class Pictures:
    """Makes pictures of one chart as it is seen."""

    def __init__(self, chart: LiveChart) -> None:
        self._chart = chart

    def image(self, scale: float = 2.0) -> QImage:
        """The plots and the legend's values as a picture."""
        width, plots, total = self._picture_size()
        image = QImage(round(width * scale), round(total * scale), QImage.Format.Format_ARGB32_Premultiplied)
        image.setDevicePixelRatio(scale)
        image.fill(self._chart.theme.colour(Role.PANEL))
        painter = QPainter(image)
        self._paint_picture(painter, width, plots)
        painter.end()
        return image

    def write_png(self, path: Path) -> None:
        """Write a picture of the visible range. Raises OSError."""
        if not self.image().save(str(path), "PNG"):  # type: ignore[call-overload]
            raise OSError(f"{path} cannot be written")

    def write_svg(self, path: Path) -> None:
        """Write the visible range as vectors. Raises OSError."""
        width, plots, total = self._picture_size()
        generator = QSvgGenerator()
        generator.setFileName(str(path))
        generator.setSize(QSize(round(width), round(total)))
        generator.setViewBox(QRectF(0, 0, width, total))
        generator.setTitle(self._chart.tr("Chart"))
        painter = QPainter()
        if not painter.begin(generator):
            raise OSError(f"{path} cannot be written")
        painter.fillRect(QRectF(0, 0, width, total), self._chart.theme.colour(Role.PANEL))
        self._paint_picture(painter, width, plots)
        painter.end()

    def _picture_size(self) -> tuple[float, float, float]:
        shown = sum(curve.is_shown for curve in self._chart.curves)
        line = QFontMetricsF(self._chart.font()).height() + 4
        plots = float(self._chart.canvas.height() + (self._chart.band.height() if self._chart.band.rows else 0))
        return float(self._chart.canvas.width()), plots, plots + line * (shown + 1) + space(4)

    def _paint_picture(self, painter: QPainter, width: float, plots: float) -> None:
        """The scene, the bands of states, and below them a line for the clock and one for each curve."""
        with self._chart.without_pointer():
            self._chart.render_now()
            scene = QRectF(self._chart.canvas.viewport().rect())
            self._chart.canvas.scene().render(painter, QRectF(0, 0, width, scene.height()), scene)
            if self._chart.band.rows:
                painter.save()
                painter.translate(0, scene.height())
                self._chart.band.paint(painter)
                painter.restore()
        painter.setFont(self._chart.font())
        line = QFontMetricsF(self._chart.font()).height() + 4
        row = QRectF(space(3), plots + space(1), width - space(6), line)
        painter.setPen(self._chart.theme.colour(Role.DIMMED))
        painter.drawText(row, Qt.AlignmentFlag.AlignVCenter, self._chart.clock_text())
        for curve in self._chart.curves:
            if not curve.is_shown:
                continue
            row.translate(0, line)
            pen = self._chart.theme.curve_pen(curve.index)
            pen.setWidthF(2)
            painter.setPen(pen)
            painter.drawLine(QPointF(row.left(), row.center().y()), QPointF(row.left() + 24, row.center().y()))
            painter.setPen(self._chart.theme.colour(Role.TEXT))
            value = self._chart.number_text(curve, curve.ring.last_value) if len(curve.ring) else ""
            text = f"{curve.name}, {curve.device_name}   {value} {curve.key.unit}"
            painter.drawText(row.adjusted(32, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, text)
