"""The second page: where is it? The fields of the kind, and what the search will do before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import shiboken6
from PySide6.QtCore import QCoreApplication, Qt, QTimer
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from app.errors import ParameterError, WorkbenchError
from app.finding.kinds import How, Kind, asked, finder
from app.finding.search import Plan
from app.model.command import ParamSpec, ParamType
from app.transports.own_addresses import LOOPBACK, OwnAddress, addresses_of_this_machine
from app.workbench import Workbench
from ui.dialogs.connection import SecretKeeper, Spawn, for_json
from ui.panels.command import ParamField
from ui.theme import Role, Theme, space
from ui.widgets.sentence_panel import tint, words_label
from ui.wizard.page import WizardPage

translate: Final = QCoreApplication.translate

PLAN_MS: Final = 250  # after the last key
LISTEN_AT: Final = "listen_host"
EVERYWHERE: Final = "0.0.0.0"


class WherePage(WizardPage):
    """``given()`` is what was entered; ``plan`` what the search will cost.

    Args:
        listen_at: the address of this computer that is offered to devices that dial in.
    """

    def __init__(
        self, theme: Theme, workbench: Workbench, spawn: Spawn, secrets: SecretKeeper | None, listen_at: str = LOOPBACK
    ) -> None:
        super().__init__(theme)
        self._workbench = workbench
        self._spawn = spawn
        self._secrets = secrets
        self._listen_at = listen_at
        self._kind: Kind | None = None
        self._own: tuple[OwnAddress, ...] = ()
        self._fields: list[ParamField] = []
        self._number = 0  # of the plan that is asked for
        self.plan: Plan | None = None
        self.plan_label = words_label()
        self.plan_label.setObjectName("wizard.plan")
        self.plan_label.setAccessibleName(self.tr("What the search will do"))
        self.plan_title = QLabel(self.tr("What will be done"))
        bold = self.plan_title.font()
        bold.setBold(True)
        self.plan_title.setFont(bold)
        self.text = words_label()
        self._form = QVBoxLayout()
        self._form.setSpacing(space(3))
        column = QVBoxLayout()
        column.setContentsMargins(0, 0, space(3), 0)
        column.setSpacing(space(3))
        column.addWidget(self.text)
        column.addLayout(self._form)
        column.addWidget(self.plan_title)
        column.addWidget(self.plan_label)
        column.addStretch(1)
        self._scroll(column)
        self._timer = QTimer(self, singleShot=True, interval=PLAN_MS)
        self._timer.timeout.connect(self._ask_plan)
        theme.changed.connect(self._colour)
        self._colour()

    # ---------------------------------------------------------------- the form

    def set_kind(self, kind: Kind) -> None:
        """Ask for what ``kind`` needs. What was entered for the same kind stays."""
        if self._kind is kind:
            self._ask_plan()
            return
        self._kind = kind
        self.text.setText(translate("Model", kind.text))
        self._fill(asked(kind, self._workbench.adapter_types()))
        if kind.how is How.DIAL_IN and not self._own:
            self._spawn(self._find_addresses())

    def _fill(self, specs: Iterable[ParamSpec]) -> None:
        for old in self._fields:
            old.hide()
            old.deleteLater()
        self._fields = [ParamField(self._as_choice(spec), self._theme) for spec in specs]
        before: QWidget | None = None
        for field in self._fields:
            self._form.addWidget(field)
            field.edited.connect(self._on_edit)
            if before is not None:
                QWidget.setTabOrder(before, field.editor)
            before = field.editor
        self._on_edit()

    def _as_choice(self, spec: ParamSpec) -> ParamSpec:
        """The listening address is chosen from those of this computer."""
        if spec.name != LISTEN_AT:
            return spec
        known = {one.address: one.title for one in self._own} or {LOOPBACK: self.tr("this computer only")}
        known.setdefault(self._listen_at, "")
        known.setdefault(EVERYWHERE, self.tr("every network of this computer"))
        rows = ((one, f"{one}  ({title})" if title else one) for one, title in known.items())
        choices = tuple(rows)
        return replace(spec, type=ParamType.CHOICE, choices=choices, required=True, default=self._listen_at)

    async def _find_addresses(self) -> None:
        found = await asyncio.to_thread(addresses_of_this_machine)
        if not shiboken6.isValid(self):
            return
        self._own = found
        kind = self._kind
        if kind is not None and kind.how is How.DIAL_IN:
            kept = {one.spec.name: one.raw() for one in self._fields}
            self._fill(asked(kind, self._workbench.adapter_types()))
            for one in self._fields:
                one.set_value(kept.get(one.spec.name))
            self._on_edit()

    def field(self, name: str) -> ParamField:
        """One field of the form."""
        return next(one for one in self._fields if one.spec.name == name)

    def _shown(self) -> list[ParamField]:
        return [one for one in self._fields if not one.isHidden()]

    def _on_edit(self) -> None:
        said = {one.spec.name: one.raw() for one in self._fields}
        for one in self._fields:
            one.setVisible(all(said.get(name) in allowed for name, allowed in one.spec.only_for.items()))
        self.plan = None
        self._number += 1
        self._timer.start()
        self.changed.emit()

    def given(self) -> dict[str, Any]:
        """What was entered, as JSON keeps it.

        Raises:
            ParameterError: a field is wrong; the sentence stands under it.
        """
        values: dict[str, Any] = {}
        first: ParameterError | None = None
        for one in self._shown():
            try:
                value = one.check()
            except ParameterError as fault:
                first = first or fault
                continue
            if value is not None:
                values[one.spec.name] = for_json(value)
        if first is not None:
            raise first
        return values

    # ---------------------------------------------------------------- what it will do

    def _ask_plan(self) -> None:
        self._timer.stop()
        self._number += 1
        wrong = self._wrong()
        self.plan_title.setVisible(not wrong)
        self.plan_label.setVisible(not wrong)
        if self._kind is None or wrong:
            return
        given = {one.spec.name: for_json(one.value()) for one in self._shown() if one.value() is not None}
        self._spawn(self._show_plan(self._number, self._kind, given))

    async def _show_plan(self, number: int, kind: Kind, given: Mapping[str, Any]) -> None:
        workbench = self._workbench
        plan, fault = None, ""
        try:
            made = await finder(
                kind, given, types=workbench.adapter_types(), clock=workbench.clock, secrets=self._secrets
            )
            plan = made.plan
        except WorkbenchError as refused:
            fault = str(refused)
        if not shiboken6.isValid(self) or number != self._number:
            return
        self.plan = plan
        self.plan_label.setText(plan.text if plan is not None else fault)
        self._colour()
        self.changed.emit()

    def _wrong(self) -> list[str]:
        return [one.spec.title for one in self._shown() if one.fault()]

    def _colour(self) -> None:
        tint(self.text, self._theme, Role.DIMMED)
        is_refused = self.plan is None and bool(self.plan_label.text())
        tint(self.plan_label, self._theme, Role.BAD if is_refused else Role.TEXT)

    # ---------------------------------------------------------------- as a page

    def heading(self) -> str:
        return translate("Model", self._kind.title) if self._kind is not None else self.tr("Where is it?")

    def verb(self) -> str:
        how = self._kind.how if self._kind is not None else How.LINE
        words = {
            How.LINE: self.tr("&Look for it"),
            How.ADDRESS: self.tr("&Look for it"),
            How.DIAL_IN: self.tr("&Wait for it"),
            How.CREDENTIALS: self.tr("&Try the credentials"),
        }
        return words[how]

    def missing(self) -> str:
        wrong = self._wrong()
        return self.tr("Still needed: {fields}.").format(fields=", ".join(wrong)) if wrong else ""

    def enter(self) -> None:
        if self._fields:
            self._fields[0].editor.setFocus(Qt.FocusReason.OtherFocusReason)
