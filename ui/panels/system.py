"""The chosen battery system: where its power goes, in which state it is, and what this program holds it in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QHideEvent, QPalette, QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from app.errors import WorkbenchError
from app.model.device import Device
from app.model.reading import DeviceState, LinkState, SampleSet, Severity
from app.model.records import DeviceRemoved
from app.workbench import Workbench
from ui.models.states import held_text, seen_in
from ui.models.system import FIRST_SCALE_W, STALE_AFTER, is_system, scale_w, system_of
from ui.theme import LINK_LOOKS, SEVERITY_LOOKS, Role, Theme, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.system_picture import SystemPicture

AGE_MS: Final = 1000
_ICON: Final = QSize(16, 16)


class SystemPanel(QWidget):
    """Follows the chosen device; keeps the last packet of every battery system, so that one is shown at once."""

    systemsChanged = Signal(bool)  # whether the workspace has any

    def __init__(self, workbench: Workbench, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._theme = theme
        self._device: Device | None = None
        self._systems: set[str] = set()
        self._last: dict[str, SampleSet] = {}
        self._scales: dict[str, float] = {}
        self._age_timer = QTimer(self, singleShot=True)
        self._age_timer.timeout.connect(self._show)
        self.setAccessibleName(self.tr("System"))
        self._build()
        theme.changed.connect(self._show)
        self._find_systems()
        self.set_device(None)

    def _build(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._stack = QStackedWidget()
        outer.addWidget(self._stack)
        self._empty = QLabel()
        self._empty.setObjectName("empty")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._empty.setTextFormat(Qt.TextFormat.PlainText)
        self._stack.addWidget(self._empty)
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(space(2), space(2), space(2), space(2))
        column.setSpacing(space(1))
        self.title = ClippedLabel()
        bold = QFont(self.title.font())
        bold.setBold(True)
        bold.setPointSizeF(bold.pointSizeF() * 1.15)
        self.title.setFont(bold)
        column.addWidget(self.title)
        self._link_icon, self.link = self._line(column)
        self._held_icon, self.held = self._line(column)
        self.picture = SystemPicture(self._theme)
        scroll = QScrollArea()
        scroll.setAccessibleName(self.tr("Picture of the system"))
        scroll.setWidget(self.picture)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        column.addWidget(scroll, 1)
        self._stack.addWidget(page)

    def _line(self, column: QVBoxLayout) -> tuple[QLabel, ClippedLabel]:
        """An icon and a sentence of at most two lines."""
        icon, words = QLabel(), ClippedLabel(lines=2)
        row = QHBoxLayout()
        row.setSpacing(space(1))
        row.addWidget(icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(words, 1)
        column.addLayout(row)
        return icon, words

    # ---------------------------------------------------------------- what is shown

    @property
    def device(self) -> str | None:
        return self._device.id if self._device is not None else None

    @property
    def has_systems(self) -> bool:
        """True while the workspace has a battery system."""
        return bool(self._systems)

    @property
    def has_chosen(self) -> bool:
        """True while the chosen device is a battery system."""
        return self.device in self._systems

    def set_device(self, device: str | None) -> None:
        """Show ``device``."""
        try:
            self._device = self._workbench.device(device) if device else None
        except WorkbenchError:
            self._device = None
        self._show()

    def empty_text(self) -> str:
        """What the panel says while it has nothing to draw; empty otherwise."""
        return self._empty.text() if self._stack.currentIndex() == 0 else ""

    def _find_systems(self) -> None:
        found: set[str] = set()
        for device in self._workbench.devices():
            try:
                if is_system(self._workbench.live_quantities(device.id)):
                    found.add(device.id)
            except WorkbenchError:
                continue  # removed a moment ago
        for gone in self._systems - found:
            self._last.pop(gone, None)
            self._scales.pop(gone, None)
        had = self.has_systems
        self._systems = found
        if had != self.has_systems:
            self.systemsChanged.emit(self.has_systems)

    def _show(self) -> None:
        self._age_timer.stop()
        device = self._device
        if device is None or device.id not in self._systems:
            self._say_nothing(device)
            return
        sample, state = self._last.get(device.id), self._workbench.state(device.id)
        seen = seen_in(state.facts)
        if sample is None:
            why = self.tr("It is connected: its next packet is shown here.")
            if state.link is not LinkState.ONLINE:
                why = state.link_text or self.tr("Connect it first.")
            words = self.tr("{name} has sent no telemetry since this workspace was opened.\n{why}")
            self._say(words.format(name=device.name, why=why))
            return
        self._stack.setCurrentIndex(1)
        self.title.setText(device.name)
        self._show_link(state)
        self._show_held(state)
        age = max(timedelta(), self._workbench.clock.now() - sample.received)
        system = system_of(sample, seen, age)
        # Arrows get no wider because others got smaller.
        scale = self._scales[device.id] = scale_w(system.most_w, self._scales.get(device.id, FIRST_SCALE_W))
        self.picture.show_system(system, scale)
        if self.isVisible():  # wake when the values get old, then once a second for their age
            left_ms = AGE_MS if system.is_stale else int((STALE_AFTER - age) / timedelta(milliseconds=1)) + 1
            self._age_timer.start(left_ms)

    def _say_nothing(self, device: Device | None) -> None:
        names = sorted(one.name for one in self._workbench.devices() if one.id in self._systems)
        if not names:
            self._say(self.tr("No device of this workspace tells battery and grid power."))
        elif device is None:
            self._say(self.tr("Choose a battery system in the tree on the left: {names}.").format(names=_few(names)))
        else:
            words = self.tr("{name} tells no battery and grid power.\nChoose a battery system in the tree: {names}.")
            self._say(words.format(name=device.name, names=_few(names)))

    def _say(self, text: str) -> None:
        self._empty.setText(text)
        self._tint(self._empty, Role.DIMMED)
        self._stack.setCurrentIndex(0)

    def _show_link(self, state: DeviceState) -> None:
        """Only what is not as it should be."""
        is_well = state.link in (LinkState.ONLINE, LinkState.REPLAY)
        look = LINK_LOOKS[state.link]
        self.link.setText("" if is_well else f"{look.text}: {state.link_text}".removesuffix(": "))
        self._link_icon.setPixmap(self._theme.icon(look).pixmap(_ICON, self.devicePixelRatioF()))
        self._tint(self.link, look.role)
        for widget in (self._link_icon, self.link):
            widget.setVisible(not is_well)

    def _show_held(self, state: DeviceState) -> None:
        words = held_text(state)
        look = SEVERITY_LOOKS[Severity.WARNING]
        self.held.setText(words)
        self._held_icon.setPixmap(self._theme.icon(look).pixmap(_ICON, self.devicePixelRatioF()))
        self._tint(self.held, look.role)
        for widget in (self._held_icon, self.held):
            widget.setVisible(bool(words))

    def _tint(self, label: QLabel, role: Role) -> None:
        palette = label.palette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
        label.setPalette(palette)

    # ---------------------------------------------------------------- live

    def on_samples(self, samples: Iterable[SampleSet]) -> None:
        shown = False
        for sample in samples:
            if sample.device in self._systems and sample.interaction is None:
                self._last[sample.device] = sample
                shown |= sample.device == self.device
        if shown and self.isVisible():
            self._show()

    def on_batch(self, changes: Sequence[object]) -> None:
        """Follow the tree, and the state of the chosen device."""
        if any(isinstance(change, Device | DeviceRemoved) for change in changes):
            self._find_systems()
            self.set_device(self.device)
        elif self.isVisible() and any(isinstance(c, DeviceState) and c.device == self.device for c in changes):
            self._show()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._show()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._age_timer.stop()


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
