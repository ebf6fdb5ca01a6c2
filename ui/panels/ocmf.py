"""Signed records: every OCMF record in the log, whether it is genuine, and what it states.

The record is shown and exported exactly as it was received. Only a genuine signature is green; a record that cannot be
checked or read is never called forged.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final, cast

from PySide6 import QtCore
from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QGuiApplication, QResizeEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.interaction_log.filters import parse
from app.interaction_log.reader import LogReader
from app.model.interaction import Interaction
from app.protocols.ocmf import KeyOrigin, Reading, Verdict, Verification, number_text, verify
from app.workbench import Workbench
from ui.log_access import LogAccess, Ticket
from ui.models.log_table import time_text
from ui.panels.detail import LinesModel, LinesView
from ui.theme import Look, Role, Shape, Theme, fixed_font, space
from ui.widgets.sentence_panel import SentencePanel, turn_split, words_label

QT_TRANSLATE_NOOP = cast("Callable[[str, str], str]", QtCore.QT_TRANSLATE_NOOP)

COMMANDS: Final = ("STOP_TRANSACTION", "READ_RECORD")
_WHERE: Final = "command:STOP_TRANSACTION or command:READ_RECORD"
_NEWEST: Final = 500
_READ_AGAIN_MS: Final = 400

VERDICT_LOOKS: Final[Mapping[Verdict, Look]] = {
    Verdict.VALID: Look(QT_TRANSLATE_NOOP("Verdict", "genuine"), Role.GOOD, Shape.TICK, context="Verdict"),
    Verdict.INVALID_SIGNATURE: Look(
        QT_TRANSLATE_NOOP("Verdict", "not genuine"), Role.BAD, Shape.CROSS, context="Verdict"
    ),
    Verdict.KEY_MISMATCH: Look(
        QT_TRANSLATE_NOOP("Verdict", "not checked: key of another kind"),
        Role.WARNING,
        Shape.WARNING_TRIANGLE,
        context="Verdict",
    ),
    Verdict.BAD_KEY: Look(
        QT_TRANSLATE_NOOP("Verdict", "not checked: unusable key"),
        Role.WARNING,
        Shape.WARNING_TRIANGLE,
        context="Verdict",
    ),
    Verdict.NO_KEY: Look(
        QT_TRANSLATE_NOOP("Verdict", "not checked: no key"), Role.WARNING, Shape.QUESTION, context="Verdict"
    ),
    Verdict.UNSUPPORTED_ALGORITHM: Look(
        QT_TRANSLATE_NOOP("Verdict", "cannot be checked here"), Role.WARNING, Shape.QUESTION, context="Verdict"
    ),
    Verdict.MALFORMED: Look(
        QT_TRANSLATE_NOOP("Verdict", "not readable"), Role.WARNING, Shape.BARRED_CIRCLE, context="Verdict"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRecord:
    """One record as the log has it."""

    interaction: int
    device: str
    at: datetime
    text: str
    data: bytes  # as received; differs from ``text`` only where that is not UTF-8
    public_key: str = ""
    transaction: str = ""
    is_intermediate: bool = False


def signed_record(item: Interaction) -> SignedRecord | None:
    """The record in the answer of ``item``; None when there is none."""
    result = item.result
    if item.command not in COMMANDS or result is None:
        return None
    text = result.get("record")
    if not isinstance(text, str) or not text:
        return None
    return SignedRecord(
        interaction=item.id,
        device=item.device,
        at=item.finished or item.updated,
        text=text,
        data=_received(result, text),
        public_key=str(result.get("public_key") or ""),
        transaction=str(result.get("transaction_id") or ""),
        is_intermediate=bool(result.get("intermediate")),
    )


def _received(result: Mapping[str, Any], text: str) -> bytes:
    kept = result.get("record_base64")
    if isinstance(kept, str):
        try:
            return base64.b64decode(kept, validate=True)
        except ValueError:
            return text.encode()
    return text.encode()


def _find(
    reader: LogReader, now: datetime, trusted: Mapping[str, Sequence[str]]
) -> list[tuple[SignedRecord, Verification]]:
    """Records of the log, newest first, each with its verdict. Runs in the reader thread."""
    items = reader.page(limit=_NEWEST, where=parse(_WHERE, now))
    records = [found for item in items if (found := signed_record(item)) is not None]
    records.sort(key=lambda record: -record.interaction)
    return [(record, check(record, trusted.get(record.device, ()))) for record in records]


def check(record: SignedRecord, trusted: Iterable[str] = (), typed_key: str = "") -> Verification:
    """Verify ``record``; a typed key wins over the one the meter gave."""
    if typed_key.strip():
        return verify(record.data, typed_key, origin=KeyOrigin.PRINTED, trusted=trusted)
    return verify(record.data, record.public_key or None, origin=KeyOrigin.METER, trusted=trusted)


class RecordsPanel(SentencePanel):
    """The list of records, and everything about the chosen one."""

    interactionActivated = Signal(int)

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent)
        self._workbench = workbench
        self._log = log
        self._zone = zone
        self._records: list[tuple[SignedRecord, Verification]] = []
        self._chosen: SignedRecord | None = None
        self._verification: Verification | None = None
        self._ticket: Ticket | None = None
        self._again = QTimer(self, singleShot=True, interval=_READ_AGAIN_MS)
        self._again.timeout.connect(self.reload)
        self.setAccessibleName(self.tr("Signed records"))
        self._build()
        theme.changed.connect(self._colour)
        self._say_instead(self.tr("Looking for signed records…"))
        self.reload()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self._split = split = QSplitter()
        split.setChildrenCollapsible(False)
        split.addWidget(self._build_list())
        scroll = QScrollArea()
        scroll.setAccessibleName(self.tr("Signed record"))
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(self._build_record())
        split.addWidget(scroll)
        split.setSizes([480, 700])
        split.setStretchFactor(1, 1)
        self._add_pages(split)

    def _build_list(self) -> QTreeWidget:
        self.list = QTreeWidget()
        self.list.setAccessibleName(self.tr("Signed records"))
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setHeaderLabels([self.tr("Time"), self.tr("Device"), self.tr("Verdict"), self.tr("Energy (kWh)")])
        self.list.headerItem().setTextAlignment(3, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.list.currentItemChanged.connect(self._on_current)
        self.list.itemActivated.connect(self._on_activated)
        return self.list

    def _build_record(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(space(3), space(2), space(3), space(2))
        layout.setSpacing(space(2))
        layout.addLayout(self._build_badge())
        self.sentence = self._words(layout)
        self.trust = self._words(layout)
        self.intermediate = self._words(layout)
        self.reasons = self._words(layout)
        layout.addLayout(self._build_facts())
        self.readings_model = LinesModel(
            [
                self.tr("Time in the record"),
                self.tr("Kind"),
                self.tr("Value"),
                self.tr("Unit"),
                self.tr("OBIS"),
                self.tr("Current"),
                self.tr("State"),
                self.tr("Faults"),
            ],
            frozenset({2}),
            self,
        )
        self.readings = LinesView(self.readings_model, self.tr("Readings"))
        layout.addWidget(self._heading(self.tr("Readings")))
        layout.addWidget(self.readings)
        layout.addWidget(self._heading(self.tr("Public key")))
        layout.addLayout(self._build_key())
        self.key_source = self._words(layout)
        layout.addLayout(self._build_raw_head())
        self.raw = QPlainTextEdit()
        self.raw.setReadOnly(True)
        self.raw.setFont(fixed_font())
        self.raw.setAccessibleName(self.tr("Record as received"))
        self.raw.setLineWrapMode(QPlainTextEdit.LineWrapMode.WidgetWidth)
        self.raw.setMinimumHeight(self.raw.fontMetrics().height() * 6)
        layout.addWidget(self.raw, 1)
        return page

    def _words(self, layout: QVBoxLayout) -> QLabel:
        label = words_label()
        layout.addWidget(label)
        return label

    def _heading(self, text: str) -> QLabel:
        label = QLabel(text)
        bold = QFont(label.font())
        bold.setBold(True)
        label.setFont(bold)
        return label

    def _build_badge(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self._badge_icon = QLabel()
        row.addWidget(self._badge_icon)
        self.badge = QLabel()
        big = QFont(self.badge.font())
        big.setBold(True)
        big.setPointSizeF(big.pointSizeF() * 1.3)
        self.badge.setFont(big)
        self.badge.setAccessibleName(self.tr("Verdict"))
        row.addWidget(self.badge)
        row.addStretch(1)
        self.energy = QLabel()
        number = fixed_font()
        number.setPointSizeF(big.pointSizeF())
        number.setBold(True)
        self.energy.setFont(number)
        self.energy.setAccessibleName(self.tr("Energy"))
        row.addWidget(self.energy)
        return row

    def _build_facts(self) -> QFormLayout:
        form = QFormLayout()
        form.setHorizontalSpacing(space(4))
        form.setVerticalSpacing(space(1))
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        self._facts: dict[str, QLabel] = {}
        titles = {
            "device": self.tr("Device"),
            "transaction": self.tr("Transaction"),
            "meter": self.tr("Meter"),
            "page": self.tr("Pagination"),
            "identification": self.tr("Identification"),
            "tariff": self.tr("Tariff"),
            "cable": self.tr("Cable"),
            "import": self.tr("Import"),
            "export": self.tr("Export"),
            "signature": self.tr("Signature"),
        }
        for key, title in titles.items():
            value = words_label()
            self._facts[key] = value
            form.addRow(title, value)
        self._facts_form = form
        return form

    def _build_key(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.key = QLineEdit()
        self.key.setFont(fixed_font())
        self.key.setPlaceholderText(self.tr("Key printed on the meter: hexadecimal, base64 or PEM"))
        self.key.setAccessibleName(self.tr("Public key printed on the meter"))
        self.key.setClearButtonEnabled(True)
        self.key.returnPressed.connect(self.verify_again)
        self.key.textChanged.connect(self._on_key_edited)
        row.addWidget(self.key, 1)
        self.verify_button = QPushButton(self.tr("Verify with the meter's key"))
        self.verify_button.clicked.connect(self.verify_again)
        row.addWidget(self.verify_button)
        return row

    def _build_raw_head(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self._heading(self.tr("Record as received")))
        row.addStretch(1)
        self.show_button = QPushButton(self.tr("Show its command"))
        self.show_button.clicked.connect(self._show_command)
        self.copy_button = QPushButton(self.tr("Copy record"))
        self.copy_button.clicked.connect(self.copy)
        self.export_button = QPushButton(self.tr("Export record…"))
        self.export_button.clicked.connect(self.export)
        for button in (self.show_button, self.copy_button, self.export_button):
            button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            row.addWidget(button)
        return row

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Narrow, the record goes below the list."""
        super().resizeEvent(event)
        turn_split(self._split, event.size().width(), 130, beside=[480, 700], below=[120, 400])

    # ---------------------------------------------------------------- finding records

    def reload(self) -> None:
        """Look for records in the log again."""
        if self._ticket is not None:
            self._ticket.cancel()
        now = datetime.now(UTC)
        trusted = {device.id: self._trusted(device.id) for device in self._workbench.devices()}
        self._ticket = self._log.ask(lambda reader: _find(reader, now, trusted), self._take, self._failed, owner=self)

    def _trusted(self, device: str) -> tuple[str, ...]:
        """Keys stored with the device at its commissioning."""
        try:
            attributes = self._workbench.device(device).attributes
        except WorkbenchError:
            return ()
        key = attributes.get("public_key")
        return (key,) if isinstance(key, str) and key else ()

    def _failed(self, error: WorkbenchError) -> None:
        self._ticket = None
        if not self._records:
            self._say_instead(str(error))

    def _take(self, found: list[tuple[SignedRecord, Verification]]) -> None:
        self._ticket = None
        chosen = self._chosen.interaction if self._chosen is not None else None
        self._records = found
        if not found:
            self._chosen = None
            self._say_instead(
                self.tr("No signed records yet.\nStop a transaction, or read a record from a meter that signs.")
            )
            return
        self._show_page()
        self.list.blockSignals(True)
        self.list.clear()
        for record, verification in found:
            self._add(record, verification)
        for column in range(3):
            self.list.resizeColumnToContents(column)
            self.list.setColumnWidth(column, self.list.columnWidth(column) + space(2))
        self.list.blockSignals(False)
        at = next((n for n, (r, _v) in enumerate(found) if r.interaction == chosen), 0)
        item = self.list.topLevelItem(at)
        if item is not None:
            self.list.setCurrentItem(item)
        self._choose(at)

    def _add(self, record: SignedRecord, verification: Verification) -> None:
        look = VERDICT_LOOKS[verification.verdict]
        energy = number_text(verification.statement.import_energy_kwh)
        item = QTreeWidgetItem(
            self.list,
            [time_text(record.at, self._zone)[:-4], self._device_name(record.device), look.text, energy or "–"],
        )
        item.setFont(0, fixed_font())
        item.setFont(3, fixed_font())
        item.setIcon(2, self._theme.icon(look))
        item.setForeground(2, self._theme.colour(look.role))
        item.setTextAlignment(3, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def _device_name(self, device: str) -> str:
        try:
            return self._workbench.device(device).name or device
        except WorkbenchError:
            return device

    def on_batch(self, changes: Sequence[object]) -> None:
        """A transaction that ended live brings its record."""
        if any(isinstance(c, Interaction) and signed_record(c) is not None for c in changes):
            self._again.start()

    # ---------------------------------------------------------------- one record

    @property
    def chosen(self) -> SignedRecord | None:
        return self._chosen

    @property
    def verification(self) -> Verification | None:
        return self._verification

    def _on_current(self, item: QTreeWidgetItem | None, _before: QTreeWidgetItem | None) -> None:
        if item is not None:
            self._choose(self.list.indexOfTopLevelItem(item))

    def _on_activated(self, _item: QTreeWidgetItem, _column: int) -> None:
        self._show_command()

    def _choose(self, at: int) -> None:
        if not 0 <= at < len(self._records):
            return
        record, verification = self._records[at]
        if self._chosen is not None and self._chosen.interaction != record.interaction:
            self.key.clear()
        keeps_typed = self._chosen == record and bool(self.key.text().strip())
        self._chosen = record
        if not keeps_typed:
            self._verification = verification
        self._show_record()

    def verify_again(self) -> None:
        """Verify the chosen record with the key in the field, or with the meter's own when it is empty."""
        if self._chosen is None:
            return
        self._verification = check(self._chosen, self._trusted(self._chosen.device), self.key.text())
        self._show_record()

    def _on_key_edited(self, text: str) -> None:
        self.verify_button.setText(
            self.tr("Verify with this key") if text.strip() else self.tr("Verify with the meter's key")
        )

    def _show_record(self) -> None:
        record, verification = self._chosen, self._verification
        if record is None or verification is None:
            return
        look = VERDICT_LOOKS[verification.verdict]
        self._badge_icon.setPixmap(self._theme.icon(look, 24).pixmap(QSize(24, 24), self.devicePixelRatioF()))
        self.badge.setText(look.text)
        self._tint(self.badge, look.role)
        energy = number_text(verification.statement.import_energy_kwh)
        self.energy.setText(f"{energy} kWh" if energy is not None else "– kWh")
        self._tint(self.energy, Role.TEXT if verification.verdict is Verdict.VALID else Role.DIMMED)
        self.sentence.setText(verification.sentence)
        self.trust.setText(verification.trust.sentence if verification.verdict is Verdict.VALID else "")
        self.trust.setVisible(bool(self.trust.text()))
        self.intermediate.setText(
            self.tr(
                "Intermediate record: it has no end reading and is not billable. Read the final record when the "
                "meter can be reached again."
            )
            if record.is_intermediate
            else ""
        )
        self.intermediate.setVisible(record.is_intermediate)
        self._tint(self.intermediate, Role.WARNING)
        self._show_reasons(record, verification)
        self._show_facts(record, verification)
        self._show_readings(verification.record.readings if verification.record is not None else ())
        self._show_key_source(record, verification)
        if self.raw.toPlainText() != record.text:
            self.raw.setPlainText(record.text)

    def _show_reasons(self, record: SignedRecord, verification: Verification) -> None:
        lines = [f"• {finding.sentence}" for finding in verification.findings]
        lines += [f"• {note}" for note in verification.notes]
        if verification.findings:
            lines.insert(0, self.tr("Not billable, because:"))
        elif verification.billable and not record.is_intermediate:
            lines.insert(0, self.tr("Billable: one begin, one end, no finding."))
        self.reasons.setText("\n".join(lines))
        self.reasons.setVisible(bool(lines))
        self._tint(self.reasons, Role.WARNING if verification.findings else Role.TEXT)

    def _show_facts(self, record: SignedRecord, verification: Verification) -> None:
        held = verification.record
        statement = verification.statement
        values: dict[str, str] = {
            "device": self._device_name(record.device),
            "transaction": record.transaction,
            "signature": verification.algorithm,
        }
        if held is not None:
            cable = held.cable or {}
            values |= {
                "meter": "  ".join(p for p in (held.meter_vendor, held.meter_model, held.meter_serial) if p),
                "page": held.pagination,
                "identification": "  ".join(
                    p for p in (held.identification_level, held.identification_type, held.identification_data) if p
                ),
                "tariff": held.tariff_text,
                "cable": "  ".join(f"{name} {value}" for name, value in cable.items()),
                "import": _span(statement.import_start_kwh, statement.import_end_kwh, statement.import_energy_kwh),
                "export": _span(statement.export_start_kwh, statement.export_end_kwh, statement.export_energy_kwh),
            }
        for key, label in self._facts.items():
            label.setText(values.get(key, ""))
            self._facts_form.setRowVisible(label, bool(label.text()))

    def _show_readings(self, readings: Sequence[Reading]) -> None:
        kinds = {
            "B": self.tr("begin"),
            "C": self.tr("charging"),
            "X": self.tr("exception"),
            "T": self.tr("tariff change"),
            "S": self.tr("suspended"),
            "E": self.tr("end"),
            "L": self.tr("end, local"),
            "R": self.tr("end, remote"),
            "A": self.tr("end, abort"),
            "P": self.tr("end, power failure"),
        }
        self.readings_model.set_rows(
            [
                (
                    r.time_text,
                    kinds.get(r.transaction, r.transaction),
                    number_text(r.value) or "–",
                    r.unit,
                    r.obis,
                    r.current,
                    self.tr("ok") if r.state == "G" else r.state,
                    r.error_flags if r.error_flags is not None else "?",
                )
                for r in readings[:1000]
            ]
        )
        shown = min(8, max(1, len(readings)))
        header = self.readings.horizontalHeader().sizeHint().height()
        line = self.readings.verticalHeader().defaultSectionSize()
        across = self.readings.horizontalScrollBar().sizeHint().height()  # it may need one
        self.readings.setFixedHeight(header + shown * line + across + 2)

    def _show_key_source(self, record: SignedRecord, verification: Verification) -> None:
        sources = {
            KeyOrigin.METER: self.tr("Checked with the key read from the meter."),
            KeyOrigin.PRINTED: self.tr("Checked with the key typed above."),
            KeyOrigin.COMMISSIONED: self.tr("Checked with the key stored at commissioning."),
            KeyOrigin.EMBEDDED: self.tr("Checked with the key inside the record."),
            KeyOrigin.NONE: self.tr("No key was used."),
        }
        point = verification.key_point.hex().upper()
        self.key_source.setText(f"{sources[verification.key_origin]} {_groups(point)}".rstrip())
        self._tint(self.key_source, Role.DIMMED)

    # ---------------------------------------------------------------- hands

    def _show_command(self) -> None:
        if self._chosen is not None:
            self.interactionActivated.emit(self._chosen.interaction)

    def copy(self) -> None:
        """The record, verbatim, to the clipboard."""
        if self._chosen is not None:
            QGuiApplication.clipboard().setText(self._chosen.text)

    def export(self) -> None:
        """Ask where to, then write the record verbatim."""
        if self._chosen is None:
            return
        dialog = QFileDialog(self, self.tr("Export record"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("ocmf")
        dialog.setNameFilters([self.tr("OCMF record (*.ocmf)"), self.tr("All files (*)")])
        dialog.selectFile(f"{self._chosen.device}-{self._chosen.interaction}.ocmf")
        record = self._chosen
        dialog.fileSelected.connect(lambda path: self.write(record, Path(path)))
        dialog.open()

    def write(self, record: SignedRecord, path: Path) -> bool:
        """Write ``record`` to ``path`` byte for byte; says why when it cannot."""
        try:
            path.write_bytes(record.data)
        except OSError as fault:
            self.sentence.setText(
                self.tr("{file} could not be written: {reason}. Choose another folder.").format(
                    file=path.name, reason=fault.strerror or str(fault)
                )
            )
            self._tint(self.sentence, Role.BAD)
            return False
        self.key_source.setText(self.tr("Exported to {file}.").format(file=path))
        return True

    def _colour(self) -> None:
        self._tint(self._empty, Role.DIMMED)
        for at, (_record, verification) in enumerate(self._records):
            item = self.list.topLevelItem(at)
            look = VERDICT_LOOKS[verification.verdict]
            if item is not None:
                item.setIcon(2, self._theme.icon(look))
                item.setForeground(2, self._theme.colour(look.role))
        self._show_record()


def _span(start: object, end: object, energy: object) -> str:
    """``57.584 → 58.685 kWh = 1.101 kWh`` as far as it is known."""
    if start is None and end is None:
        return ""
    text = f"{start if start is not None else '–'} → {end if end is not None else '–'} kWh"
    return f"{text} = {energy} kWh" if energy is not None else text


def _groups(text: str) -> str:
    """Long hexadecimal text that may wrap."""
    return " ".join(text[i : i + 8] for i in range(0, len(text), 8))
