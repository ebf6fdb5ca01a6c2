"""The connection wizard: choose what is in front of you, say where, look, test, save. Never a modal loop.

The form by hand is one button away with everything that is known by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent, QPalette
from PySide6.QtWidgets import QDialog, QFrame, QHBoxLayout, QLabel, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from app.errors import ParameterError
from app.model.device import Device
from app.transports.own_addresses import LOOPBACK
from app.workbench import Workbench
from ui.dialogs.connection import SecretKeeper, Spawn
from ui.theme import Role, Theme, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import tint
from ui.wizard.kinds import KindsPage
from ui.wizard.page import WizardPage
from ui.wizard.saving import DonePage, SavingPage
from ui.wizard.search import SearchPage
from ui.wizard.trial import TrialPage
from ui.wizard.where import WherePage

LETTERS, LINES = 150, 42  # size of the dialog


@dataclass(frozen=True, slots=True)
class ByHand:
    """What the form by hand may begin with; ``adapter`` is empty where nothing is known."""

    adapter: str = ""
    name: str = ""
    serial: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)


class ConnectionWizard(QDialog):
    """``saved`` carries each device after the core has taken it.

    Args:
        parent_hint: id of the device that was chosen in the tree.
        listen_at: the address of this computer that is offered to devices that dial in.
    """

    saved = Signal(Device)
    flowRequested = Signal(str)  # id of the device
    byHandRequested = Signal(object)  # ByHand; the wizard has closed

    def __init__(
        self,
        workbench: Workbench,
        theme: Theme,
        spawn: Spawn,
        *,
        secrets: SecretKeeper | None = None,
        parent_hint: str = "",
        listen_at: str = LOOPBACK,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("wizard")
        self.setWindowTitle(self.tr("Connect a meter"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowModality(Qt.WindowModality.WindowModal)
        self._theme = theme
        self._devices: tuple[Device, ...] = ()
        self._goes_on = False  # to the test, once the search has let go of its ports
        self.kinds = KindsPage(theme, workbench.adapter_types())
        self.where = WherePage(theme, workbench, spawn, secrets, listen_at)
        self.search = SearchPage(theme, workbench, spawn, secrets)
        self.trial = TrialPage(theme, workbench, spawn)
        self.saving = SavingPage(theme, workbench, spawn, secrets, parent_hint)
        self.done_page = DonePage(theme)
        self._pages: tuple[WizardPage, ...] = (
            self.kinds, self.where, self.search, self.trial, self.saving, self.done_page,
        )  # fmt: skip
        self._build()
        for page in self._pages:
            page.changed.connect(self._show_page)
            page.forward.connect(self.go_on)
        self.saving.saved.connect(self._on_saved)
        self.done_page.flowRequested.connect(self._start_flow)
        self.done_page.anotherRequested.connect(self._another)
        theme.changed.connect(self._colour)
        metrics = self.fontMetrics()
        self.resize(metrics.averageCharWidth() * LETTERS, metrics.height() * LINES)
        self._go_to(self.kinds)

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        names = (self.tr("What"), self.tr("Where"), self.tr("Search"), self.tr("Test"), self.tr("Save"))
        self._steps = [QLabel(f"{number}  {name}") for number, name in enumerate(names, start=1)]
        steps = QHBoxLayout()
        steps.setSpacing(space(2))
        for number, label in enumerate(self._steps):
            if number:
                line = QFrame()
                line.setFrameShape(QFrame.Shape.HLine)
                line.setFrameShadow(QFrame.Shadow.Plain)
                line.setFixedWidth(space(6))
                line.setForegroundRole(QPalette.ColorRole.Mid)
                steps.addWidget(line)
            steps.addWidget(label)
        steps.addStretch(1)
        self.heading = QLabel()
        self.heading.setObjectName("wizard.heading")
        self.heading.setWordWrap(True)
        large = self.heading.font()
        large.setPointSizeF(large.pointSizeF() * 1.4)
        self.heading.setFont(large)
        self._stack = QStackedWidget()
        for page in self._pages:
            self._stack.addWidget(page)

        self.by_hand = QPushButton(self.tr("Enter it by &hand..."))
        self.by_hand.setObjectName("wizard.by_hand")
        self.by_hand.setToolTip(self.tr("The form with every setting; it begins with what is known by now."))
        self.by_hand.clicked.connect(self._ask_by_hand)
        self.missing = ClippedLabel(2)
        self.missing.setObjectName("wizard.missing")
        self.leave = QPushButton()
        self.leave.setObjectName("wizard.leave")
        self.leave.clicked.connect(self.reject)
        self.back = QPushButton(self.tr("&Back"))
        self.back.setObjectName("wizard.back")
        self.back.clicked.connect(self.go_back)
        self.next = QPushButton()
        self.next.setObjectName("wizard.next")
        self.next.clicked.connect(self.go_on)
        for button in (self.by_hand, self.leave, self.back):
            button.setAutoDefault(False)
        self.next.setDefault(True)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.by_hand)
        row.addWidget(self.missing, 1)
        for button in (self.leave, self.back, self.next):
            row.addWidget(button)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(3))
        outer.addLayout(steps)
        outer.addWidget(self.heading)
        outer.addWidget(self._stack, 1)
        outer.addLayout(row)

    # ---------------------------------------------------------------- from page to page

    def page(self) -> WizardPage:
        """The one that is shown."""
        return self._pages[self._stack.currentIndex()]

    def _go_to(self, page: WizardPage) -> None:
        self._stack.setCurrentWidget(page)
        self._show_page()
        page.enter()

    def _show_page(self) -> None:
        """What the page says of itself, around it; on to the test once the search has ended."""
        page = self.page()
        if self._goes_on and not self.search.is_looking:
            self._goes_on = False
            self._test()
            return
        is_over = page is self.done_page
        missing = page.missing()
        self.heading.setText(page.heading())
        self.missing.setText(missing)
        self.next.setText(page.verb())
        self.next.setEnabled(not missing)
        self.back.setVisible(not is_over)
        self.back.setEnabled(page is not self.kinds)
        self.by_hand.setVisible(not is_over)
        self.leave.setText(self.tr("Close") if is_over else self.tr("Leave without saving"))
        self._colour()

    def _colour(self) -> None:
        at = self._stack.currentIndex()
        tint(self.missing, self._theme, Role.DIMMED)
        for number, label in enumerate(self._steps):
            font = label.font()
            font.setBold(number == at)
            label.setFont(font)
            tint(label, self._theme, Role.ACCENT if number == at else Role.TEXT if number < at else Role.DIMMED)

    def go_on(self) -> None:
        """What the button in front says."""
        page = self.page()
        if page.missing():
            return
        if page is self.kinds and (kind := self.kinds.kind()) is not None:
            self.where.set_kind(kind)
            self._go_to(self.where)
        elif page is self.where:
            self._search()
        elif page is self.search:
            self._goes_on = True
            self.search.stop()
            self._show_page()
        elif page is self.trial:
            self._name_it()
        elif page is self.saving:
            self.saving.save()
        else:
            self.accept()

    def go_back(self) -> None:
        """The page before; a search or test that is under way ends."""
        page = self.page()
        self._goes_on = False
        if page is self.search:
            self.search.stop()
        elif page is self.trial:
            self.trial.probing.stop()
        at = self._stack.currentIndex()
        if at:
            self._go_to(self._pages[at - 1])

    def _search(self) -> None:
        kind = self.kinds.kind()
        try:
            given = self.where.given()
        except ParameterError:
            return  # it stands under its field
        if kind is not None:
            self._go_to(self.search)
            self.search.begin(kind, given)
            self.search.enter()

    def _test(self) -> None:
        candidate = self.search.candidate()
        if candidate is not None:
            self._go_to(self.trial)
            self.trial.set_candidate(candidate)
            self._show_page()

    def _name_it(self) -> None:
        candidate = self.trial.candidate()
        if candidate is not None:
            self.saving.set_candidate(candidate, self.trial.secrets(), is_tested=self.trial.probing.is_passed)
            self._go_to(self.saving)

    def _on_saved(self, devices: tuple[Device, ...]) -> None:
        self._devices = devices
        for one in devices:
            self.saved.emit(one)
        self.done_page.set_devices(devices)
        self._go_to(self.done_page)

    def _start_flow(self) -> None:
        self.flowRequested.emit(self._devices[0].id)
        self.accept()

    def _another(self) -> None:
        self._go_to(self.kinds)

    def _ask_by_hand(self) -> None:
        known = self._known()
        self.reject()
        self.byHandRequested.emit(known)

    def _known(self) -> ByHand:
        """What is known by now."""
        page = self.page()
        candidate = self.search.candidate() if page in (self.search, self.trial, self.saving) else None
        if candidate is not None:
            settings = {**candidate.settings, **candidate.secrets}
            return ByHand(candidate.adapter, candidate.title, candidate.serial, settings)
        kind = self.kinds.kind()
        return ByHand(kind.adapters[0]) if kind is not None else ByHand()

    # ---------------------------------------------------------------- leaving

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc stops a search first, and leaves then."""
        if event.key() == Qt.Key.Key_Escape and self.page() is self.search and self.search.is_looking:
            self.search.stop()
            return
        super().keyPressEvent(event)

    def done(self, result: int) -> None:
        self.search.stop()
        self.trial.probing.stop()
        super().done(result)
