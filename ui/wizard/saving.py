"""The last pages: a name and a place, then the device is saved; and what may follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import shiboken6
from PySide6.QtCore import QCoreApplication, Qt, Signal
from PySide6.QtWidgets import (
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
)

from app.errors import ParameterError, WorkbenchError
from app.finding.search import Candidate, free_id
from app.model.device import Device, NodeKind
from app.workbench import Workbench
from ui.dialogs.connection import (
    KEYRING,
    SecretKeeper,
    Spawn,
    basic_specs,
    place_of,
    put_away,
    session_only_box,
    taken_text,
)
from ui.panels.command import ParamField
from ui.routes import secret_name
from ui.theme import Look, Role, Shape, Theme, space
from ui.widgets.result_box import ResultBox
from ui.widgets.sentence_panel import tint, words_label
from ui.wizard.page import WizardPage, on_button

translate: Final = QCoreApplication.translate

ROWS: Final = 8  # of the list of proposals, without scrolling
DEVICE_ROLE: Final = int(Qt.ItemDataRole.UserRole)


class SavingPage(WizardPage):
    """``saved`` carries the devices once the core has them. Of several proposals the ticked ones are saved."""

    saved = Signal(object)  # tuple[Device, ...]

    def __init__(
        self, theme: Theme, workbench: Workbench, spawn: Spawn, secrets: SecretKeeper | None, parent_hint: str
    ) -> None:
        super().__init__(theme)
        self._workbench = workbench
        self._spawn = spawn
        self._keeper = secrets
        self._candidate: Candidate | None = None
        self._secrets: Mapping[str, str] = {}
        self._is_tested = False
        self._is_saving = False
        self._id_is_typed = False
        self._hint = place_of(workbench, parent_hint)
        self.note = words_label()
        self.note.setObjectName("wizard.note")
        self.proposals = QListWidget()
        self.proposals.setObjectName("wizard.proposals")
        self.proposals.setAccessibleName(self.tr("What will be saved"))
        self.proposals.itemChanged.connect(lambda _item: self._check())
        self.proposals_title = QLabel(self.tr("&What will be saved"))
        self.proposals_title.setBuddy(self.proposals)
        places = [one for one in workbench.devices() if one.kind is not NodeKind.METER]
        specs = basic_specs(places)
        plate = self.tr("As on its name plate. Its flow checks that this meter is the one that answers.")
        specs["serial"] = replace(specs["serial"], help=plate)
        self._fields = {name: ParamField(specs[name], theme) for name in ("name", "serial", "id", "parent")}
        self._fields["name"].edited.connect(self._on_name)
        self._fields["id"].edited.connect(self._on_id)
        self._fields["parent"].set_value(self._hint)
        self.session_only = session_only_box("wizard.session_only")
        self.result_box = ResultBox(theme)
        self.result_box.setObjectName("wizard.saving")
        column = QVBoxLayout()
        column.setContentsMargins(0, 0, space(3), 0)
        column.setSpacing(space(3))
        for one in (self.note, self.proposals_title, self.proposals, *self._fields.values(), self.session_only):
            column.addWidget(one)
        column.addWidget(self.result_box)
        column.addStretch(1)
        self._scroll(column)
        for one in self._fields.values():
            one.edited.connect(self._check)
        theme.changed.connect(self._colour)
        self._colour()

    def set_candidate(self, candidate: Candidate, secrets: Mapping[str, str], *, is_tested: bool) -> None:
        """What is to be saved. ``secrets``: words by the name of their field."""
        self._secrets, self._is_tested = secrets, is_tested
        if candidate is not self._candidate:
            self._candidate = candidate
            self._propose(candidate)
        self.session_only.setVisible(self._keeper is not None and bool(secrets))
        self.result_box.hide()
        self._check()

    def _propose(self, candidate: Candidate) -> None:
        devices = self._workbench.devices()
        known = {(one.adapter, one.serial) for one in devices if one.serial}
        found = candidate.devices({one.id for one in devices})
        self._id_is_typed = False
        self.proposals.blockSignals(True)
        self.proposals.clear()
        for one in found:
            is_there = (one.adapter, one.serial) in known
            text = self.tr("{name}  (in the tree already)") if is_there else "{name}"
            item = QListWidgetItem(text.format(name=one.name))
            item.setData(DEVICE_ROLE, one)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Unchecked if is_there else Qt.CheckState.Checked)
            self.proposals.addItem(item)
        self.proposals.blockSignals(False)
        rows = min(ROWS, len(found))
        self.proposals.setFixedHeight(rows * self.proposals.sizeHintForRow(0) + 2 * self.proposals.frameWidth())
        is_one = len(found) == 1
        for widget in (self.proposals, self.proposals_title):
            widget.setVisible(not is_one)
        for name in ("name", "serial", "id"):
            self._fields[name].setVisible(is_one)
        self._fields["name"].set_value(found[0].name)
        self._fields["serial"].set_value(found[0].serial)
        self._fields["id"].set_value(found[0].id)

    # ---------------------------------------------------------------- what stands in the form

    def field(self, name: str) -> ParamField:
        """``name``, ``serial``, ``id`` or ``parent``."""
        return self._fields[name]

    def _on_name(self) -> None:
        if not self._id_is_typed:
            taken = [one.id for one in self._workbench.devices()]
            self._fields["id"].set_value(free_id(str(self._fields["name"].raw() or ""), taken))

    def _on_id(self) -> None:
        self._id_is_typed = bool(self._fields["id"].raw())

    def _ticked(self) -> list[Device]:
        rows = [self.proposals.item(row) for row in range(self.proposals.count())]
        is_one = len(rows) == 1
        return [row.data(DEVICE_ROLE) for row in rows if is_one or row.checkState() is Qt.CheckState.Checked]

    def _shown(self) -> list[ParamField]:
        return [one for one in self._fields.values() if not one.isHidden()]

    def _clash(self) -> str:
        if self._fields["id"].isHidden():
            return ""
        return taken_text(self._workbench, str(self._fields["id"].raw() or ""))

    def _check(self) -> None:
        self._fields["id"].show_error(self._clash())
        self.note.setText(" ".join(self._notes()))
        self.note.setVisible(bool(self.note.text()))
        self.changed.emit()

    def _notes(self) -> list[str]:
        notes = []
        if not self._is_tested:
            notes.append(self.tr("There was no good test of this connection. It can be saved all the same."))
        ticked = self._ticked()
        known = {(one.adapter, one.serial): one for one in self._workbench.devices() if one.serial}
        if len(ticked) == 1:
            serial = ticked[0].serial if self._fields["serial"].isHidden() else self._serial()
            if (there := known.get((ticked[0].adapter, serial))) is not None:
                text = self.tr("{name} has the serial number {serial} too: it seems to be the same device.")
                notes.append(text.format(name=there.name, serial=there.serial))
        return notes

    def _serial(self) -> str:
        return str(self._fields["serial"].raw() or "").strip()

    def _devices(self) -> list[Device]:
        """What is saved, without secrets. Raises ParameterError: it stands under its field."""
        values = {name: one.check() for name, one in self._fields.items() if not one.isHidden()}
        parent = str(values.get("parent") or "")
        ticked = [replace(one, parent=parent) for one in self._ticked()]
        if "name" in values:
            name, identity = str(values["name"]).strip(), str(values["id"])
            ticked = [replace(ticked[0], name=name, id=identity, serial=self._serial())]
        return ticked

    # ---------------------------------------------------------------- saving

    def save(self) -> None:
        """Put the secrets away, then save."""
        if self.missing():
            return
        try:
            devices = self._devices()
        except ParameterError:
            return  # it stands under its field
        if self._secrets and self._keeper is not None:
            self._is_saving = True
            self.changed.emit()
            self._spawn(self._keep(self._keeper, devices))
            return
        self._hand_over(devices)

    async def _keep(self, keeper: SecretKeeper, devices: list[Device]) -> None:
        form = self._workbench.adapter_types()[devices[0].adapter].form()
        kept_as = partial(secret_name, devices[0].id, devices[0].route)
        fault = ""
        try:
            await put_away(keeper, self._secrets, form, kept_as, only_session=self.session_only.isChecked())
        except WorkbenchError as refused:
            fault = str(refused)
        if not shiboken6.isValid(self):
            return
        self._is_saving = False
        self.changed.emit()
        if fault:
            self.result_box.say(fault, False)
            return
        self._hand_over(devices)

    def _hand_over(self, devices: list[Device]) -> None:
        first = devices[0]  # one account for all of them, so its secrets are kept once
        words = {name: f"{KEYRING}{secret_name(first.id, first.route, name)}" for name in self._secrets}
        complete = [replace(one, settings={**one.settings, **words}) for one in devices]
        done: list[Device] = []
        try:
            for one in complete:
                self._workbench.save_device(one)
                done.append(one)
        except WorkbenchError as fault:
            self.result_box.say(str(fault), False)
        if done:
            self.saved.emit(tuple(done))

    def _colour(self) -> None:
        tint(self.note, self._theme, Role.WARNING)

    # ---------------------------------------------------------------- as a page

    def heading(self) -> str:
        return self.tr("Its name and its place")

    def verb(self) -> str:
        ticked = self._ticked()
        if len(ticked) > 1:
            return self.tr("&Save {n} devices").format(n=len(ticked))
        name = str(self._fields["name"].raw() or "") if self.proposals.count() == 1 else ""
        name = name or (ticked[0].name if ticked else "")
        return self.tr("&Save {name}").format(name=on_button(name)) if name else self.tr("&Save the device")

    def missing(self) -> str:
        if self._is_saving:
            return self.tr("It is being saved...")
        if not self._ticked():
            return self.tr("Tick what is to be saved.")
        wrong = [one.spec.title for one in self._shown() if one.fault()]
        if wrong:
            return self.tr("Still needed: {fields}.").format(fields=", ".join(wrong))
        return self._clash()

    def enter(self) -> None:
        first = self._fields["name"].editor if self._fields["name"].isVisible() else self.proposals
        first.setFocus(Qt.FocusReason.OtherFocusReason)


class DonePage(WizardPage):
    """It is saved; what may follow."""

    flowRequested = Signal()
    anotherRequested = Signal()

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme)
        self._devices: tuple[Device, ...] = ()
        self.icon = QLabel()
        self.text = words_label()
        self.text.setObjectName("wizard.done")
        large = self.text.font()
        large.setPointSizeF(large.pointSizeF() * 1.3)
        self.text.setFont(large)
        self.next = words_label()
        self.flow = QPushButton()
        self.flow.setObjectName("wizard.flow")
        self.flow.clicked.connect(self.flowRequested)
        self.another = QPushButton(self.tr("Connect &another"))
        self.another.setObjectName("wizard.another")
        self.another.clicked.connect(self.anotherRequested)
        column = QVBoxLayout(self)
        column.setContentsMargins(space(8), space(8), space(8), 0)
        column.setSpacing(space(3))
        for words in (self.icon, self.text, self.next):
            column.addWidget(words)
        for button in (self.flow, self.another):
            column.addWidget(button, 0, Qt.AlignmentFlag.AlignLeft)
        column.addStretch(1)
        theme.changed.connect(self._colour)
        self._colour()

    def set_devices(self, devices: tuple[Device, ...]) -> None:
        """What was saved."""
        self._devices = devices
        names = ", ".join(one.name for one in devices)
        is_one = len(devices) == 1
        self.text.setText(
            (self.tr("{names} is saved.") if is_one else self.tr("{names} are saved.")).format(names=names)
        )
        self.next.setText(
            self.tr("The connection opens by itself. What it says stands in the device list and under Log.")
        )
        self.flow.setText(self.tr("Start its &flow: commission {name}").format(name=on_button(devices[0].name)))
        self.flow.setVisible(is_one)

    def _colour(self) -> None:
        side = self.fontMetrics().height() * 3
        self.icon.setPixmap(self._theme.pixmap(Look("", Role.GOOD, Shape.TICK), side, self.devicePixelRatioF()))
        tint(self.next, self._theme, Role.DIMMED)

    def heading(self) -> str:
        return self.tr("Saved")

    def verb(self) -> str:
        return (
            self.tr("&Go to {name}").format(name=on_button(self._devices[0].name))
            if self._devices
            else self.tr("&Close")
        )

    def enter(self) -> None:
        first = self.flow if self.flow.isVisible() else self.another
        first.setFocus(Qt.FocusReason.OtherFocusReason)
