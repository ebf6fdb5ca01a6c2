"""Files, clipboard and paper: what leaves a chart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import shiboken6
from PySide6.QtCore import QObject, QRectF, Signal
from PySide6.QtGui import QGuiApplication, QPageLayout, QPainter
from PySide6.QtPrintSupport import QPrintDialog, QPrinter
from PySide6.QtWidgets import QDialog, QFileDialog

from app.errors import WorkbenchError
from app.lab.curve_file import write_csv, write_parquet
from app.lab.series import Series
from ui.theme import Theme
from ui.widgets.chart.curve import Extent

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


class _Paper(Theme):
    """The light colours, whatever the window has."""

    def __init__(self) -> None:
        QObject.__init__(self)
        self._is_dark = False


class Exporter(QObject):
    """Asks where to, and writes. Samples are written by a thread of their own, from copies."""

    _written = Signal(str, object)  # path; what went wrong, or None

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self.is_writing = False
        self._written.connect(self._on_written)

    # ---------------------------------------------------------------- files
    def ask(self, kind: str, extent: Extent) -> None:
        """Ask where to write, without a nested loop."""
        title = self.tr("Write a picture") if kind in ("png", "svg") else self.tr("Write the samples")
        dialog = QFileDialog(self._chart, title)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(kind)
        dialog.setNameFilter(f"{kind.upper()} (*.{kind})")
        dialog.fileSelected.connect(lambda path: self.write(kind, extent, path))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def write(self, kind: str, extent: Extent, path: str) -> None:
        """Write; the chart says ``exported`` or ``exportFailed``."""
        if kind in ("png", "svg"):
            try:
                {"png": self._chart.export_png, "svg": self._chart.export_svg}[kind](Path(path))
            except OSError as error:
                self._on_written(path, error)
            else:
                self._on_written(path, None)
            return
        if self.is_writing:
            self._chart.refused.emit(self.tr("A file is still being written: wait until it is done."))
            return
        if extent is Extent.CURSORS and len(self._chart.cursors) < 2:
            self._chart.refused.emit(self.tr("Nothing was written: set the cursors A and B first."))
            return
        self._set_writing(True)
        series = self._chart.series(extent)
        work = partial(self._work, write_csv if kind == "csv" else write_parquet, Path(path), series)
        threading.Thread(target=work, name="chart export", daemon=True).start()

    def _work(self, write: Callable[[Path, Sequence[Series]], None], path: Path, series: Sequence[Series]) -> None:
        """In the thread."""
        fault: Exception | None = None
        try:
            write(path, series)
        except (OSError, WorkbenchError) as error:
            fault = error
        finally:
            if shiboken6.isValid(self):
                self._written.emit(str(path), fault)

    def _on_written(self, path: str, fault: Exception | None) -> None:
        self._set_writing(False)
        if fault is None:
            self._chart.exported.emit(path)
        elif isinstance(fault, OSError):
            text = self.tr("The chart could not be written to {0}: {1}. Choose another folder.")
            words = fault.strerror or self.tr("the file cannot be opened")
            self._chart.exportFailed.emit(text.format(path, words))
        else:
            self._chart.exportFailed.emit(str(fault))

    def _set_writing(self, is_writing: bool) -> None:
        self.is_writing = is_writing
        self._chart.bar.show_writing(is_writing)

    # ---------------------------------------------------------------- clipboard and paper
    def copy_picture(self) -> None:
        """Put the picture on the clipboard."""
        QGuiApplication.clipboard().setImage(self._chart.image())

    def ask_print(self) -> None:
        """Ask for a printer, without a nested loop."""
        printer = QPrinter(QPrinter.PrinterMode.HighResolution)
        printer.setPageOrientation(QPageLayout.Orientation.Landscape)
        dialog = QPrintDialog(printer, self._chart)
        dialog.setWindowTitle(self.tr("Print the chart"))
        dialog.accepted.connect(lambda: self.print_to(printer))
        dialog.finished.connect(dialog.deleteLater)
        QDialog.open(dialog)  # its own wants a slot by name

    def print_to(self, printer: QPrinter) -> None:
        """Print one page in the colours for paper."""
        painter = QPainter()
        if not painter.begin(printer):
            text = self.tr("The chart could not be printed: the printer {0} does not answer. Choose another one.")
            self._chart.exportFailed.emit(text.format(printer.printerName()))
            return
        page = printer.pageRect(QPrinter.Unit.DevicePixel)
        with self._on_paper():
            self._chart.paint_picture(painter, QRectF(0, 0, page.width(), page.height()))
        painter.end()

    @contextmanager
    def _on_paper(self) -> Iterator[None]:
        """The canvas wears the light colours until the next event is handled; the window never shows them."""
        theme = self._chart.theme
        self._chart.theme = _Paper()
        self._chart.wear()
        try:
            yield
        finally:
            self._chart.theme = theme
            self._chart.wear()
