"""Saving the report of a run: asks for the file, builds the report beside the window, and writes it.

The data is built and JSON and HTML are written in a thread with a reader of its own; a PDF is drawn on the GUI thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QFileDialog, QWidget

from app import reports
from app.errors import WorkbenchError
from app.interaction_log.reader import LogReader
from app.interaction_log.share import secrets_of
from app.model.device import Device
from app.model.flow import Batch, Commissioning, FlowRun
from app.ports import Secrets
from ui.dialogs.lab import Errand
from ui.log_access import LogAccess

_UNFIT: Final = re.compile(r"[^\w.-]+")
Reported: TypeAlias = FlowRun | Commissioning | Batch


class ReportSaver(QObject):
    """One report after the other. ``told`` and ``failed`` carry a sentence."""

    told = Signal(str)
    failed = Signal(str)

    def __init__(
        self,
        log: LogAccess,
        parent: QWidget,
        *,
        secrets: Secrets | None = None,
        folder: Callable[[], Path | None] = lambda: None,
    ) -> None:
        super().__init__(parent)
        self._log = log
        self._window = parent
        self._secrets = secrets
        self._folder = folder
        self._errand: Errand | None = None

    def ask(self, run: Reported, device: Device | None) -> None:
        """Ask where, then write. Returns at once, with the open dialog. A batch has no device."""
        dialog = QFileDialog(self._window, self.tr("Save the report"))
        dialog.setObjectName("report.file")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        forms = ((self.tr("PDF, to print and sign"), "pdf"), (self.tr("HTML page"), "html"), (self.tr("JSON"), "json"))
        filters = [f"{title} (*.{ending})" for title, ending in forms]
        dialog.setNameFilters(filters)
        dialog.setDefaultSuffix("pdf")
        endings = {text: ending for text, (_title, ending) in zip(filters, forms, strict=True)}
        dialog.filterSelected.connect(lambda text: dialog.setDefaultSuffix(endings.get(text, "pdf")))
        folder = self._folder()
        if folder is not None:
            dialog.setDirectory(str(folder))
        dialog.selectFile(file_name(run, device))
        dialog.fileSelected.connect(lambda path: self.save(run, Path(path)))
        dialog.open()

    def save(self, run: Reported, file: Path) -> None:
        """Write the report of ``run`` in the form that the file's name asks for."""
        from ui.report_pdf import write_pdf

        try:
            reports.check_form(file, write_pdf)
        except WorkbenchError as fault:
            self.failed.emit(str(fault))
            return
        self.told.emit(self.tr("The report {name} is being written.").format(name=file.name))
        opened = partial(self._log.open_reader, self._log.path)
        work = partial(_built, opened, run, file, self._secrets)
        self._errand = Errand(work, partial(self._written, file), self._on_fault, self)

    def _written(self, file: Path, report: Mapping[str, Any] | None) -> None:
        self._errand = None
        if report is not None:
            from ui.report_pdf import write_pdf

            try:
                reports.write_report(report, file, write_pdf)
            except WorkbenchError as fault:
                self.failed.emit(str(fault))
                return
        self.told.emit(self.tr("The report was written to {file}.").format(file=file))

    def _on_fault(self, fault: WorkbenchError) -> None:
        self._errand = None
        self.failed.emit(str(fault))


def file_name(run: Reported, device: Device | None) -> str:
    """What a report is called unless somebody says otherwise: flow, device, date in UTC."""
    flow = run.flow if isinstance(run, FlowRun) else f"batch-{run.id}" if isinstance(run, Batch) else "commissioning"
    of = f"-{device.serial or device.id}" if device is not None else ""
    return f"{_UNFIT.sub('-', f'{flow}{of}-{run.created:%Y%m%d}')}.pdf"


def _built(
    opened: Callable[[], LogReader], run: Reported, file: Path, secrets: Secrets | None
) -> Mapping[str, Any] | None:
    """In a thread: build it, and write it unless it is a PDF; what is still to be written."""
    from app.doctor import installed_version

    version = installed_version("meterwright") or "from source"
    with opened() as reader:
        words = secrets_of(reader.snapshot().devices, secrets) if secrets is not None else frozenset()
        if isinstance(run, Batch):
            report = reports.build_batch(run, reader, version=version, secrets=words)
        else:
            report = reports.build(run, reader, version=version, secrets=words)
    if file.suffix.lower() == ".pdf":
        return report
    reports.write_report(report, file)
    return None
