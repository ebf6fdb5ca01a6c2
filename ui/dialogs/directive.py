"""Editor of a directive of an Aviora gateway (aviora-protocolzd 8.9 and 11): its operations as rows, checked as typed.

What the device could not take is refused at once; what it would take although no paper names it is only a warning.
The dialog sends nothing: its text goes into the command's form, which can be filled in by hand just as well.
"""

from __future__ import annotations

import json
from typing import Final

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QPalette, QValidator
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import ParameterError
from app.protocols.aviora import (
    MAX_DIRECTIVE_CHARS,
    MAX_DIRECTIVE_ID_CHARS,
    Device,
    Directive,
    DirectiveAdd,
    Step,
    directive_warnings,
    encode,
)
from ui.models.directives import steps_of, text_of
from ui.theme import Role, Theme, fixed_font, space

OPERATIONS: Final = ("setBaud", "setFraming", "sendData", "wait", "readData")  # section 11
_FORBIDDEN: Final = '"\\{}'
_MOST_REMARKS: Final = 3  # sentences below the table
_OPERATION, _PARAMETER, _REMARK = range(3)


def length_of(directive: Directive) -> int:
    """Characters between the outer braces, as they are limited (8.9)."""
    steps = [{"operation": step.operation, "parameter": step.parameter} for step in directive.steps]
    return len(json.dumps({"id": directive.id, "directive": steps}, separators=(",", ":"))) - 2


class _Allowed(QValidator):
    """Refuses what the device could not read, and tells which character it was."""

    refused = Signal(str)

    def __init__(self, forbidden: str, only_names: bool, parent: QObject) -> None:
        super().__init__(parent)
        self._forbidden = forbidden
        self._only_names = only_names

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        for char in text:
            if self._only_names and not (char.isascii() and (char.isalnum() or char in "_-")):
                self.refused.emit(self._words(char))
                return QValidator.State.Invalid, text, position
            if char in self._forbidden or not " " <= char <= "~":
                self.refused.emit(self._words(char))
                return QValidator.State.Invalid, text, position
        return QValidator.State.Acceptable, text, position

    def _words(self, char: str) -> str:
        if self._only_names and char not in _FORBIDDEN and " " <= char <= "~":
            shown = self.tr("a blank") if char == " " else char
            return self.tr("Refused: {char}. The id becomes a file name: only letters, digits, _ and -.").format(
                char=shown
            )
        if char == "=":
            return self.tr("Refused: =. An operation is a name; what it is given stands in the parameter.")
        if not " " <= char <= "~":
            return self.tr(
                "Refused: a character outside printable ASCII. Write a byte as two hex digits in brackets: [0D]."
            )
        return self.tr(
            "Refused: {char}. The gateway understands no escapes, so it would not store the directive."
        ).format(char=char)


class DirectiveDialog(QDialog):
    """Rows of operation and parameter, the room that is left, and what looks odd about them."""

    taken = Signal(str, str)  # id, steps as text

    def __init__(self, theme: Theme, parent: QWidget | None = None, *, name: str = "", steps: str = "") -> None:
        super().__init__(parent)
        self._theme = theme
        self.setWindowTitle(self.tr("Directive"))
        self.setObjectName("directive")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowModality(Qt.WindowModality.WindowModal)
        self._words_timer = QTimer(self, singleShot=True, interval=6000)
        self._words_timer.timeout.connect(self._clear_refusal)
        self._names = _Allowed("", True, self)
        self._operations = _Allowed(f"{_FORBIDDEN}=", False, self)
        self._texts = _Allowed(_FORBIDDEN, False, self)
        for validator in (self._names, self._operations, self._texts):
            validator.refused.connect(self._refuse)
        self._build()
        self.name.setText(name)
        for step in steps_of(steps) or (Step("", ""),):
            self._add(step)
        theme.changed.connect(self._check)
        self._check()
        self.name.setFocus(Qt.FocusReason.OtherFocusReason)

    def _build(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(2))
        self.note = QLabel(
            self.tr(
                "The gateway stores a directive and lists it. Its public device code does not execute it: readouts and "
                "load profiles follow a fixed dialogue, whatever stands here."
            )
        )
        self.note.setWordWrap(True)
        outer.addWidget(self.note)
        form = QFormLayout()
        self.name = QLineEdit()
        self.name.setMaxLength(MAX_DIRECTIVE_ID_CHARS)
        self.name.setValidator(self._names)
        self.name.setFont(fixed_font())
        self.name.setAccessibleName(self.tr("Id of the directive"))
        self.name.textChanged.connect(self._check)
        form.addRow(self.tr("Id"), self.name)
        outer.addLayout(form)
        self.rows = QTableWidget(0, 3)
        self.rows.setAccessibleName(self.tr("Operations"))
        self.rows.setHorizontalHeaderLabels([self.tr("Operation"), self.tr("Parameter"), self.tr("Remark")])
        self.rows.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.rows.setTabKeyNavigation(False)
        header = self.rows.horizontalHeader()
        header.setSectionResizeMode(_PARAMETER, QHeaderView.ResizeMode.Stretch)
        self.rows.setColumnWidth(_REMARK, self.fontMetrics().averageCharWidth() * 22)
        self.rows.setColumnWidth(_OPERATION, self.fontMetrics().averageCharWidth() * 22)
        self.rows.verticalHeader().setDefaultSectionSize(QComboBox().sizeHint().height() + space(1))
        outer.addWidget(self.rows, 1)
        outer.addLayout(self._build_hands())
        self.refusal = self._words(outer)
        self.remarks = self._words(outer)
        outer.addLayout(self._build_foot())
        self.resize(self.fontMetrics().averageCharWidth() * 120, self.fontMetrics().height() * 26)

    def _words(self, layout: QVBoxLayout) -> QLabel:
        label = QLabel()
        label.setWordWrap(True)
        label.setTextFormat(Qt.TextFormat.PlainText)
        layout.addWidget(label)
        return label

    def _build_hands(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.add_button = QPushButton(self.tr("Add operation"))
        self.add_button.clicked.connect(lambda: self._insert(self.current_row() + 1))
        self.remove_button = QPushButton(self.tr("Remove operation"))
        self.remove_button.clicked.connect(self.remove_current)
        self.up_button = QPushButton(self.tr("Up"))
        self.up_button.setToolTip(self.tr("Alt+Up"))
        self.up_button.clicked.connect(lambda: self.move_current(-1))
        self.down_button = QPushButton(self.tr("Down"))
        self.down_button.setToolTip(self.tr("Alt+Down"))
        self.down_button.clicked.connect(lambda: self.move_current(1))
        for button in (self.add_button, self.remove_button, self.up_button, self.down_button):
            button.setAutoDefault(False)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # a click leaves the row where the cursor is
            row.addWidget(button)
        row.addStretch(1)
        self.counter = QLabel()
        self.counter.setFont(fixed_font())
        self.counter.setAccessibleName(self.tr("Length of the directive"))
        row.addWidget(self.counter)
        return row

    def _build_foot(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addStretch(1)
        self.stay = QPushButton(self.tr("Leave as it was"))
        self.stay.setAutoDefault(False)
        self.stay.clicked.connect(self.reject)
        self.go = QPushButton(self.tr("Put into the form"))
        self.go.setAutoDefault(False)
        self.go.clicked.connect(self._take)
        row.addWidget(self.stay)
        row.addWidget(self.go)
        return row

    # ---------------------------------------------------------------- rows

    def _add(self, step: Step, at: int | None = None) -> None:
        row = self.rows.rowCount() if at is None else at
        self.rows.insertRow(row)
        operation = QComboBox()
        operation.setEditable(True)
        operation.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        operation.addItems(list(OPERATIONS))
        operation.setValidator(self._operations)
        operation.setCurrentText(step.operation)
        operation.setAccessibleName(self.tr("Operation"))
        operation.currentTextChanged.connect(self._check)
        parameter = QLineEdit(step.parameter)
        parameter.setValidator(self._texts)
        parameter.setFont(fixed_font())
        parameter.setFrame(False)
        parameter.setAccessibleName(self.tr("Parameter"))
        parameter.textChanged.connect(self._check)
        self.rows.setCellWidget(row, _OPERATION, operation)
        self.rows.setCellWidget(row, _PARAMETER, parameter)
        remark = QTableWidgetItem()
        remark.setFlags(Qt.ItemFlag.ItemIsEnabled)
        self.rows.setItem(row, _REMARK, remark)
        for editor in (operation.lineEdit(), parameter):
            if editor is not None:
                editor.installEventFilter(self)

    def operation(self, row: int) -> QComboBox:
        editor = self.rows.cellWidget(row, _OPERATION)
        if not isinstance(editor, QComboBox):
            raise IndexError(row)
        return editor

    def parameter(self, row: int) -> QLineEdit:
        editor = self.rows.cellWidget(row, _PARAMETER)
        if not isinstance(editor, QLineEdit):
            raise IndexError(row)
        return editor

    def remark(self, row: int) -> str:
        item = self.rows.item(row, _REMARK)
        return item.text() if item is not None else ""

    def current_row(self) -> int:
        """The row with the cursor; the last one where none has it."""
        focus = self.focusWidget()
        for row in range(self.rows.rowCount()):
            if focus in (self.operation(row), self.operation(row).lineEdit(), self.parameter(row)):
                return row
        return self.rows.rowCount() - 1

    def _insert(self, at: int) -> None:
        self._add(Step("", ""), at)
        self.operation(at).setFocus(Qt.FocusReason.OtherFocusReason)
        self._check()

    def remove_current(self) -> None:
        row = self.current_row()
        if row < 0:
            return
        self.rows.removeRow(row)
        if self.rows.rowCount() == 0:
            self._add(Step("", ""))
        self.parameter(min(row, self.rows.rowCount() - 1)).setFocus(Qt.FocusReason.OtherFocusReason)
        self._check()

    def move_current(self, way: int) -> None:
        """The row with the cursor one up (-1) or down (1)."""
        row = self.current_row()
        to = row + way
        if row < 0 or not 0 <= to < self.rows.rowCount():
            return
        here, there = self._step(row), self._step(to)
        self._put(row, there)
        self._put(to, here)
        self.parameter(to).setFocus(Qt.FocusReason.OtherFocusReason)

    def _step(self, row: int) -> Step:
        return Step(self.operation(row).currentText().strip(), self.parameter(row).text().strip())

    def _put(self, row: int, step: Step) -> None:
        self.operation(row).setCurrentText(step.operation)
        self.parameter(row).setText(step.parameter)

    def directive(self) -> Directive:
        """What stands in the rows; empty ones at the end are left out."""
        steps = [self._step(row) for row in range(self.rows.rowCount())]
        while steps and steps[-1] == Step("", ""):
            steps.pop()
        return Directive(self.name.text(), tuple(steps))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            alt = event.modifiers() & Qt.KeyboardModifier.AltModifier
            match event.key():
                case Qt.Key.Key_Up if alt:
                    self.move_current(-1)
                    return True
                case Qt.Key.Key_Down if alt:
                    self.move_current(1)
                    return True
                case Qt.Key.Key_Return | Qt.Key.Key_Enter:
                    self._insert(self.current_row() + 1)
                    return True
                case _:
                    pass
        return super().eventFilter(watched, event)

    # ---------------------------------------------------------------- checks

    def _check(self, *_args: object) -> None:
        """Counter, remarks, and whether it can be put into the form."""
        directive = self.directive()
        length = length_of(directive)
        self.counter.setText(self.tr("{count} of {most} characters").format(count=length, most=MAX_DIRECTIVE_CHARS))
        self._tint(self.counter, Role.BAD if length > MAX_DIRECTIVE_CHARS else Role.DIMMED)
        for row in range(self.rows.rowCount()):
            self._remark(row)
        fault = self.fault(directive)
        warnings = directive_warnings(directive)
        self.remarks.setText(
            fault or "\n".join((*warnings[:_MOST_REMARKS], *(("…",) * (len(warnings) > _MOST_REMARKS))))
        )
        self._tint(self.remarks, Role.BAD if fault and directive.steps else Role.WARNING if warnings else Role.DIMMED)
        self.go.setEnabled(not fault)
        self.go.setAccessibleDescription(fault)

    def _remark(self, row: int) -> None:
        """A word beside a row; the sentence stands below the table."""
        item = self.rows.item(row, _REMARK)
        step = self._step(row)
        if item is None:
            return
        found = directive_warnings(Directive("x", (step,))) if step.operation else ()
        text = ""
        if found:
            text = self.tr("unusual parameter") if step.operation in OPERATIONS else self.tr("unknown operation")
        item.setText(text)
        item.setForeground(self._theme.colour(Role.WARNING))

    def fault(self, directive: Directive) -> str:
        """Why the device could not take ``directive``; empty when it can."""
        if not directive.steps:
            return self.tr("Enter at least one operation.")
        try:
            encode(Device("0"), DirectiveAdd(directive))
        except ParameterError as wrong:
            return str(wrong)
        return ""

    def _refuse(self, words: str) -> None:
        self.refusal.setText(words)
        self._tint(self.refusal, Role.BAD)
        self._words_timer.start()

    def _clear_refusal(self) -> None:
        self.refusal.clear()

    def _take(self) -> None:
        directive = self.directive()
        self.taken.emit(directive.id, text_of(directive.steps))
        self.accept()

    def _tint(self, label: QLabel, role: Role) -> None:
        palette = label.palette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
        label.setPalette(palette)
