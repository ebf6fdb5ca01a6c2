"""A chart as a picture: image, PNG, SVG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QFont, QFontMetricsF, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from ui.theme import Role, space
from ui.widgets.chart.painting import curve_pen

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


_LEGEND_PX: Final = 320  # of one column of the legend


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
        generator.setTitle(self._chart.title or self._chart.tr("Chart"))
        painter = QPainter()
        if not painter.begin(generator):
            raise OSError(f"{path} cannot be written")
        painter.fillRect(QRectF(0, 0, width, total), self._chart.theme.colour(Role.PANEL))
        self._paint_picture(painter, width, plots)
        painter.end()

    def paint_into(self, painter: QPainter, target: QRectF) -> None:
        """Paint the picture as large as it fits into a rectangle, in its middle at the top."""
        width, plots, total = self._picture_size()
        scale = min(target.width() / width, target.height() / total)
        painter.save()
        painter.translate(target.left() + (target.width() - width * scale) / 2, target.top())
        painter.scale(scale, scale)
        painter.fillRect(QRectF(0, 0, width, total), self._chart.theme.colour(Role.PANEL))
        self._paint_picture(painter, width, plots)
        painter.restore()

    @property
    def _line(self) -> float:
        return QFontMetricsF(self._chart.font()).height() + 4

    @property
    def _head(self) -> float:
        """Height of the title."""
        return self._line + space(2) if self._chart.title else 0.0

    def _picture_size(self) -> tuple[float, float, float]:
        """Width, the lower end of the plots, and the whole height."""
        shown = sum(curve.is_shown for curve in self._chart.curves)
        band = self._chart.band.height() if self._chart.band.rows else 0
        plots = self._head + self._chart.canvas.height() + band
        width = float(self._chart.canvas.width())
        lines = 1 + math.ceil(shown / self._legend_columns(width))
        return width, plots, plots + self._line * lines + space(4)

    @staticmethod
    def _legend_columns(width: float) -> int:
        return max(1, int(width // _LEGEND_PX))

    def _paint_picture(self, painter: QPainter, width: float, plots: float) -> None:
        """The title, the scene, the bands of states, and below them a line for the clock and one for each curve."""
        chart = self._chart
        if chart.title:
            font = QFont(chart.font())
            font.setBold(True)
            painter.setFont(font)
            painter.setPen(chart.theme.colour(Role.TEXT))
            head = QRectF(space(3), 0, width - space(6), self._head)
            painter.drawText(head, Qt.AlignmentFlag.AlignVCenter, chart.title)
        with chart.pointer.away():
            chart.render_now()
            scene = QRectF(chart.canvas.viewport().rect())
            chart.canvas.scene().render(painter, QRectF(0, self._head, width, scene.height()), scene)
            if chart.band.rows:
                painter.save()
                painter.translate(0, self._head + scene.height())
                chart.band.paint(painter)
                painter.restore()
        painter.setFont(chart.font())
        row = QRectF(space(3), plots + space(1), width - space(6), self._line)
        painter.setPen(chart.theme.colour(Role.DIMMED))
        left_us, right_us = chart.visible_range_us
        since, until = (chart.exact_time_text(t_us)[:-3] for t_us in (left_us, right_us))
        painter.drawText(row, Qt.AlignmentFlag.AlignVCenter, f"{since} \N{EN DASH} {until}   {chart.clock_text()}")
        shown = [curve for curve in chart.curves if curve.is_shown]
        columns = self._legend_columns(width)
        top, row_width = row.top(), row.width() / columns
        for place, curve in enumerate(shown):
            down, across = divmod(place, columns)
            row = QRectF(space(3) + across * row_width, top + (down + 1) * self._line, row_width, self._line)
            pen = curve_pen(chart.theme, curve)
            pen.setWidthF(2)
            painter.setPen(pen)
            painter.drawLine(QPointF(row.left(), row.center().y()), QPointF(row.left() + 24, row.center().y()))
            painter.setPen(chart.theme.colour(Role.TEXT))
            text = f"{curve.name}, {curve.device_name}"
            if len(curve.ring) and curve.reference is None:
                text += f"   {chart.number_text(curve, curve.ring.last_value)} {curve.key.unit}"
            painter.drawText(row.adjusted(32, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, text)
