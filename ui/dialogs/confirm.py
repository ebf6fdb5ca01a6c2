"""Questions that name what they are about. Opened, never executed: the loop goes on and every other task with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import (
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.model.command import CommandSpec, ParamSpec, ParamType, Risk
from app.model.device import Device
from app.model.reading import Severity
from ui.model_words import shown_command
from ui.models.log_table import scalar_text
from ui.theme import Role, Theme, space

translate: Final = QCoreApplication.translate


class Question(QDialog):
    """A sentence, what it is about, and two verbs. The harmless one has the focus."""

    def __init__(
        self,
        parent: QWidget,
        *,
        title: str,
        text: str,
        verb: str,
        refuse: str,
        theme: Theme | None,
        severity: Severity = Severity.WARNING,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowModality(Qt.WindowModality.WindowModal)
        self._theme = theme
        icon = QLabel()
        if theme is not None:
            side = self.fontMetrics().height() * 2
            icon.setPixmap(theme.severity_icon(severity, side).pixmap(side, side))
        icon.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.text = QLabel(text)
        self.text.setObjectName("question.text")
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setWordWrap(True)
        bold = self.text.font()
        bold.setBold(True)
        self.text.setFont(bold)
        self.body = QVBoxLayout()
        self.body.setSpacing(space(3))
        self.body.addWidget(self.text)
        self.go = QPushButton(verb)
        self.go.setObjectName("question.go")
        self.go.setAutoDefault(False)
        self.go.clicked.connect(self.accept)
        self.stay = QPushButton(refuse)
        self.stay.setObjectName("question.stay")
        self.stay.setDefault(True)
        self.stay.clicked.connect(self.reject)
        self.buttons = buttons = QHBoxLayout()
        buttons.setSpacing(space(2))
        buttons.addStretch(1)
        buttons.addWidget(self.stay)
        buttons.addWidget(self.go)
        row = QHBoxLayout()
        row.setSpacing(space(4))
        row.addWidget(icon)
        row.addLayout(self.body, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(4))
        outer.addLayout(row)
        outer.addStretch(1)
        outer.addLayout(buttons)
        self.setMinimumWidth(self.fontMetrics().averageCharWidth() * 64)
        self.stay.setFocus(Qt.FocusReason.OtherFocusReason)

    def add_text(self, text: str, role: Role | None = None) -> QLabel:
        label = QLabel(text)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(True)
        if role is not None and self._theme is not None:
            palette = label.palette()
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
            label.setPalette(palette)
        self.body.addWidget(label)
        return label


class CommandQuestion(Question):
    """Names the meter, the old and the new value, the warning, and the verb."""

    def __init__(
        self,
        parent: QWidget,
        *,
        device: Device,
        spec: CommandSpec,
        params: Mapping[str, Any],
        old_value: Any,
        theme: Theme | None,
    ) -> None:
        spec = shown_command(spec)
        verb = spec.verb.replace("{device}", device.name) if spec.verb else ""
        if not verb:
            verb = translate("Question", "{command}: {device}").format(command=spec.title, device=device.name)
        severity = Severity.BAD if spec.risk is Risk.TOP else Severity.WARNING
        super().__init__(
            parent,
            title=spec.title,
            text=translate("Question", "{verb}?").format(verb=verb),
            verb=verb,
            refuse=translate("Question", "Do not send"),
            theme=theme,
            severity=severity,
        )
        self.setObjectName("confirm")
        self._device = device
        if spec.warning:
            self.warning = self.add_text(spec.warning, Role.BAD if spec.risk >= Risk.DANGEROUS else None)
        caution = spec.caution(params) if spec.caution is not None else ""
        if caution:
            self.caution = self.add_text(caution, Role.WARNING)
        facts = QFormLayout()
        facts.setHorizontalSpacing(space(4))
        facts.setVerticalSpacing(space(1))
        facts.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        who = (
            device.name
            if not device.serial
            else self.tr("{name}, serial number {serial}").format(name=device.name, serial=device.serial)
        )
        self._row(facts, self.tr("Meter"), who)
        for name, value in params.items():
            param = spec.param(name)
            if param is None or value is None or value == "":
                continue
            shown = self.tr("(not shown)") if param.type is ParamType.SECRET else _value(value, param.unit)
            if param.choices:
                shown = next((title for key, title in param.choices if key == value), shown)
            if name == spec.changed_param:
                self._old_and_new(facts, param, old_value, shown)
            else:
                self._row(facts, param.title, shown)
        changed = spec.param(spec.changed_param)
        if changed is not None and params.get(changed.name) in (None, ""):
            self._old_and_new(facts, changed, old_value, changed.help or self.tr("left to the program"))
        self.body.addLayout(facts)
        self.serial: QLineEdit | None = None
        if spec.risk is Risk.TOP:
            self._ask_serial()

    def _ask_serial(self) -> None:
        wanted = self._device.serial or self._device.id
        what = self.tr("serial number") if self._device.serial else self.tr("id")
        self.add_text(self.tr("Type the {what} {serial} to go on.").format(what=what, serial=wanted))
        self.serial = QLineEdit()
        self.serial.setObjectName("confirm.serial")
        self.serial.setAccessibleName(self.tr("Serial number of the meter"))
        self.serial.textChanged.connect(self._on_serial)
        self.body.addWidget(self.serial)
        self.go.setEnabled(False)
        self.serial.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_serial(self, text: str) -> None:
        matches = text.strip() == (self._device.serial or self._device.id)
        self.go.setEnabled(matches)
        self.go.setDefault(matches)
        self.stay.setDefault(not matches)

    def _old_and_new(self, form: QFormLayout, param: ParamSpec, old_value: Any, new: str) -> None:
        old = self.tr("unknown") if old_value is None else _value(scalar_text(old_value, param.unit), param.unit)
        self._row(form, self.tr("{what} now").format(what=param.title), old)
        self._row(form, self.tr("{what} then").format(what=param.title), new)

    def _row(self, form: QFormLayout, title: str, value: str) -> None:
        label = QLabel(value)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(True)
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        head = QLabel(title)
        if self._theme is not None:
            palette = head.palette()
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(Role.DIMMED))
            head.setPalette(palette)
        form.addRow(head, label)


def confirm_command(
    parent: QWidget,
    *,
    device: Device,
    spec: CommandSpec,
    params: Mapping[str, Any],
    old_value: Any,
    on_yes: Callable[[], None],
    theme: Theme | None = None,
) -> QDialog:
    """Ask before a risky command; ``on_yes`` is called when the person says so. Returns at once, with the open dialog.

    The READ tier must not come here: reads never ask.
    """
    dialog = CommandQuestion(parent, device=device, spec=spec, params=params, old_value=old_value, theme=theme)
    dialog.accepted.connect(on_yes)
    dialog.open()
    return dialog


def ask(
    parent: QWidget,
    *,
    title: str,
    text: str,
    verb: str,
    on_yes: Callable[[], None],
    detail: str = "",
    refuse: str = "",
    theme: Theme | None = None,
) -> QDialog:
    """Ask something about this program itself, with the verb on the button. Returns at once."""
    dialog = Question(
        parent, title=title, text=text, verb=verb, refuse=refuse or translate("Question", "Leave as it is"), theme=theme
    )
    if detail:
        dialog.add_text(detail)
    dialog.accepted.connect(on_yes)
    dialog.open()
    return dialog


def tell(parent: QWidget, *, title: str, text: str, detail: str) -> QDialog:
    """Show something to read, with one way out. Returns at once."""
    dialog = Question(parent, title=title, text=text, verb="", refuse=translate("Question", "Close"), theme=None)
    dialog.go.hide()
    label = dialog.add_text(detail)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    dialog.open()
    return dialog


def _value(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return translate("Question", "yes") if value else translate("Question", "no")
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    return f"{text} {unit}".rstrip()
