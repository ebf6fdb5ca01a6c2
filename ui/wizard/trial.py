"""The fourth page: the test. What was found is tried as the adapter will use it; passwords may be entered here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from app.errors import ParameterError
from app.finding.search import Candidate
from app.model.command import ParamSpec, ParamType
from app.workbench import Workbench
from ui.dialogs.connection import ConnectionTest, Spawn
from ui.panels.command import ParamField
from ui.theme import Role, Theme, space
from ui.widgets.result_box import ResultBox
from ui.widgets.sentence_panel import tint, words_label
from ui.wizard.page import WizardPage

translate: Final = QCoreApplication.translate

LONGEST: Final = 60  # characters of a setting that are shown


class TrialPage(WizardPage):
    """``settings`` and ``secrets()`` are those that were tried last, or will be saved untried."""

    def __init__(self, theme: Theme, workbench: Workbench, spawn: Spawn) -> None:
        super().__init__(theme)
        self._workbench = workbench
        self._candidate: Candidate | None = None
        self._words: list[ParamField] = []
        self.text = words_label()
        self.table = QGridLayout()
        self.table.setHorizontalSpacing(space(4))
        self.table.setVerticalSpacing(space(1))
        self.table.setColumnStretch(1, 1)
        self._form = QVBoxLayout()
        self._form.setSpacing(space(3))
        self.words_title = QLabel(self.tr("Passwords and keys, where the device wants them"))
        bold = self.words_title.font()
        bold.setBold(True)
        self.words_title.setFont(bold)
        self.result_box = ResultBox(theme)
        self.result_box.setObjectName("wizard.result")
        self.probing = ConnectionTest(workbench, spawn, self.result_box, self)
        self.probing.ended.connect(self._on_ended)
        self.test = QPushButton(self.tr("Test a&gain"))
        self.test.setObjectName("wizard.test")
        self.test.setAutoDefault(False)
        self.test.clicked.connect(self.begin)
        row = QHBoxLayout()
        row.addWidget(self.test)
        row.addStretch(1)
        column = QVBoxLayout()
        column.setContentsMargins(0, 0, space(3), 0)
        column.setSpacing(space(3))
        column.addWidget(self.result_box)
        column.addLayout(row)
        column.addWidget(self.text)
        column.addLayout(self.table)
        column.addWidget(self.words_title)
        column.addLayout(self._form)
        column.addStretch(1)
        self._scroll(column)
        theme.changed.connect(self._colour)

    # ---------------------------------------------------------------- what is tried

    def set_candidate(self, candidate: Candidate) -> None:
        """Show what was found, and try it."""
        if candidate is not self._candidate:
            self._candidate = candidate
            self.probing.forget()
            self.text.setText(candidate.text)
            self._fill_table(candidate)
            self._fill_words(candidate)
            self._colour()
        if not self.probing.is_passed:
            self.begin()

    def _form_of(self, candidate: Candidate) -> tuple[ParamSpec, ...]:
        return tuple(self._workbench.adapter_types()[candidate.adapter].form())

    def _fill_table(self, candidate: Candidate) -> None:
        while (taken := self.table.takeAt(0)) is not None:
            if (old := taken.widget()) is not None:
                old.deleteLater()
        titles = {spec.name: spec.title for spec in self._form_of(candidate)}
        kind = self._workbench.adapter_types()[candidate.adapter]
        rows = [(self.tr("Reached by"), translate("Model", kind.title))]
        if candidate.serial:
            rows.append((self.tr("Serial number"), candidate.serial))
        rows += [(translate("Model", titles[name]), _shown(value)) for name, value in candidate.settings.items()]
        for row, (title, value) in enumerate(rows):
            name, words = QLabel(title), words_label()
            words.setText(value)
            words.setAccessibleName(title)
            self.table.addWidget(name, row, 0, Qt.AlignmentFlag.AlignTop)
            self.table.addWidget(words, row, 1)

    def _fill_words(self, candidate: Candidate) -> None:
        """A field for every secret that means something beside what was found."""
        for old in self._words:
            old.hide()
            old.deleteLater()
        form = self._form_of(candidate)
        said = {spec.name: candidate.settings.get(spec.name, spec.default) for spec in form}
        wanted = [
            spec
            for spec in form
            if spec.type is ParamType.SECRET
            and all(said.get(name) in allowed for name, allowed in spec.only_for.items())
        ]
        self._words = [ParamField(spec, self._theme) for spec in wanted]
        for field in self._words:
            field.set_value(candidate.secrets.get(field.spec.name))
            field.edited.connect(self._on_edit)
            self._form.addWidget(field)
        self.words_title.setVisible(bool(self._words))

    def candidate(self) -> Candidate | None:
        """What is tried."""
        return self._candidate

    def field(self, name: str) -> ParamField:
        """One of the fields for secrets."""
        return next(one for one in self._words if one.spec.name == name)

    def secrets(self) -> dict[str, str]:
        """What stands in the fields for secrets, by name. Raises ParameterError: it stands under its field."""
        checked = {field.spec.name: field.check() for field in self._words}
        return {name: str(value) for name, value in checked.items() if value}

    # ---------------------------------------------------------------- the test

    def begin(self) -> None:
        """Try the connection, unless it is being tried."""
        candidate = self._candidate
        if candidate is None or self.probing.is_under_way:
            return
        try:
            secrets = self.secrets()
        except ParameterError:
            self.changed.emit()
            return  # it stands under its field
        self.test.setEnabled(False)
        settings: Mapping[str, Any] = {**candidate.settings, **secrets}
        self.probing.begin(candidate.adapter, settings)
        self.changed.emit()

    def _on_ended(self) -> None:
        self.test.setEnabled(True)
        self.changed.emit()

    def _on_edit(self) -> None:
        """The last test was of other words."""
        self.probing.forget()
        self.changed.emit()

    def _colour(self) -> None:
        tint(self.text, self._theme, Role.DIMMED)
        for row in range(self.table.rowCount()):
            cell = self.table.itemAtPosition(row, 0)
            label = cell.widget() if cell is not None else None
            if isinstance(label, QLabel):
                tint(label, self._theme, Role.DIMMED)

    # ---------------------------------------------------------------- as a page

    def heading(self) -> str:
        name = self._candidate.title if self._candidate is not None else ""
        return self.tr("Test of {name}").format(name=name)

    def verb(self) -> str:
        return self.tr("&Name it") if self.probing.is_passed else self.tr("&Name it without a good test")

    def missing(self) -> str:
        wrong = [field.spec.title for field in self._words if field.fault()]
        if wrong:
            return self.tr("Still needed: {fields}.").format(fields=", ".join(wrong))
        return self.tr("The test is under way.") if self.probing.is_under_way else ""

    def enter(self) -> None:
        self.test.setFocus(Qt.FocusReason.OtherFocusReason)


def _shown(value: Any) -> str:
    """A setting on one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
