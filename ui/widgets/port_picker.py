"""The address of a line: a port from those of this computer, or anything typed, such as socket://192.0.2.7:4059.

Asking the system for its ports may take seconds, so it is done in a thread, each time the list is opened; what is kept
is the address of a port (for a USB adapter one that holds wherever it is plugged in), what is shown its title.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox, QCompleter, QLineEdit, QWidget

from app.errors import WorkbenchError
from app.transports.serial_ports import USB, PortInfo, list_ports, resolve

LOOK_MS = 30  # how often the thread's answer is looked for

Line: TypeAlias = tuple[str, str | None]  # what is shown, and its address; None: it only says something


@dataclass(frozen=True, slots=True)
class Ports:
    """What the system said. ``plugged_as`` is the port that ``kept``, a usb: address, stands for now, or ""."""

    ports: tuple[PortInfo, ...] = ()
    kept: str = ""
    plugged_as: str = ""
    fault: str = ""


Find: TypeAlias = Callable[[str], Ports]


def find_ports(kept: str) -> Ports:
    """The ports of this computer, and where the adapter of the ``kept`` address is. Runs in a thread."""
    try:
        ports = list_ports()
    except WorkbenchError as fault:
        return Ports(kept=kept, fault=str(fault))
    if not _is_usb(kept):
        return Ports(ports, kept)
    try:
        return Ports(ports, kept, plugged_as=resolve(kept))
    except WorkbenchError:
        return Ports(ports, kept)


def _is_usb(address: str) -> bool:
    return address.lower().startswith(USB)


class PortPicker(QComboBox):
    """``address()`` is what is kept. ``edited`` comes when a person chose or typed something."""

    edited = Signal()
    found = Signal()  # the list is that of now

    def __init__(self, find: Find | None = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._find = find or find_ports
        self._kept = ""  # an address given from outside
        self._shown: tuple[Line, ...] = ()
        self._answers: queue.SimpleQueue[Ports] = queue.SimpleQueue()
        self._is_asked = False
        self._look = QTimer(self, interval=LOOK_MS)
        self._look.timeout.connect(self._take)
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self._line = line = QLineEdit()
        line.setPlaceholderText(self.tr("A port, or socket://host:port or rfc2217://host:port"))
        line.textEdited.connect(lambda _text: self.edited.emit())
        self.setLineEdit(line)
        completer = self.completer()
        if completer is not None:  # a list, because words put in while typing would spoil a URL
            completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
            completer.setFilterMode(Qt.MatchFlag.MatchContains)
        self.activated.connect(lambda _index: self.edited.emit())
        self.refresh()

    # ---------------------------------------------------------------- the value

    def address(self) -> str:
        """The address of the chosen port, or what was typed."""
        text = self.currentText().strip()
        at = self.findText(text, Qt.MatchFlag.MatchExactly | Qt.MatchFlag.MatchCaseSensitive)
        return text if at < 0 else str(self.itemData(at) or "")

    def set_address(self, address: str) -> None:
        """Show a kept address; a USB adapter by its title once the system has told of it."""
        self._kept = address.strip()
        self._show(self._kept)
        if _is_usb(self._kept):
            self.refresh()

    def _show(self, address: str) -> None:
        at = self.findData(address) if address else -1
        self.setCurrentIndex(at)
        if at < 0:
            self.setEditText(address)
        self._line.setCursorPosition(0)

    # ---------------------------------------------------------------- the ports

    def showPopup(self) -> None:
        """Open the list at once with what is known, and ask for the ports of now."""
        self.refresh()
        super().showPopup()

    def refresh(self) -> None:
        """Ask the system for its ports, unless it is being asked."""
        if self._is_asked:
            return
        self._is_asked = True
        if not self._shown:
            self._fill([(self.tr("Looking for ports…"), None)])
        find, kept, answers = self._find, self._kept, self._answers
        told = Ports(kept=kept, fault=self.tr("The ports of this computer could not be listed. Type an address."))

        def work() -> None:
            nonlocal told
            try:
                told = find(kept)
            finally:
                answers.put(told)

        threading.Thread(target=work, name="serial-ports", daemon=True).start()
        self._look.start()

    def _take(self) -> None:
        try:
            told = self._answers.get_nowait()
        except queue.Empty:
            return
        self._is_asked = False
        self._look.stop()
        if told.kept != self._kept and _is_usb(self._kept):  # another address was set meanwhile
            self.refresh()
            return
        lines: list[Line] = [(port.title, port.address) for port in told.ports]
        if title := self._kept_title(told):
            lines.append((title, self._kept))
        if not told.ports:
            lines.append((told.fault or self.tr("No serial port is connected to this computer."), None))
        self._fill(lines)
        self.found.emit()

    def _fill(self, lines: Sequence[Line]) -> None:
        """Show ``lines`` and keep what is chosen or typed; nothing moves where nothing changed."""
        if self._shown == tuple(lines):
            return
        self._shown = tuple(lines)
        address, is_open = self.address(), self.view().isVisible()
        was_blocked = self.blockSignals(True)
        self.clear()
        for at, (text, kept) in enumerate(lines):
            self.addItem(text, kept)
            self.setItemData(at, kept or text, Qt.ItemDataRole.ToolTipRole)
            model = self.model()
            if kept is None and isinstance(model, QStandardItemModel):
                model.item(at).setEnabled(False)
        self._show(address)
        self.blockSignals(was_blocked)
        if is_open:
            super().showPopup()  # once more, as high as there are ports now

    def _kept_title(self, told: Ports) -> str:
        """How a kept usb: address is shown that is not among the ports as it is written."""
        if not _is_usb(self._kept) or any(port.address == self._kept for port in told.ports):
            return ""
        if told.plugged_as:
            return self.tr("{address}  (now {port})").format(address=self._kept, port=told.plugged_as)
        return self.tr("{address}  (not plugged in)").format(address=self._kept)
