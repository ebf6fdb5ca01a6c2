"""What the chosen meter can be told: a list of commands, a form from their parameters, one big verb.

Everything shown comes from the ``CommandSpec``; a new system adds specifications and this file stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from PySide6.QtCore import QCoreApplication, QEvent, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QFont, QKeyEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSplitter,
    QStackedWidget,
    QToolButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import ParameterError, WorkbenchError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Risk
from app.model.device import Device
from app.model.flow import Issue
from app.model.interaction import Interaction
from app.model.reading import DeviceState, LinkState
from app.model.status import Status
from app.workbench import Workbench
from ui.arming import armed_first
from ui.field_state import field_limits, heard, issue_text, transfer_text
from ui.model_words import command_text, model_text, shown_command, shown_param
from ui.models.directives import is_directive
from ui.models.states import held_text
from ui.reasons import reason_text, token_accepted
from ui.routes import other_ways_text, reached_text
from ui.theme import (
    HEARD_LOOKS,
    LINK_LOOKS,
    STATUS_LOOKS,
    Look,
    Role,
    Shape,
    Theme,
    fixed_font,
    link_word,
    space,
    status_word,
)
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.port_picker import PortPicker

if TYPE_CHECKING:
    from ui.dialogs.directive import DirectiveDialog


class Confirm(Protocol):
    """Asks the person, and calls ``on_yes`` when the answer is yes. Returns at once."""

    def __call__(
        self,
        parent: QWidget,
        *,
        device: Device,
        spec: CommandSpec,
        params: Mapping[str, Any],
        old_value: Any,
        on_yes: Callable[[], None],
    ) -> object: ...


def ask_first(
    confirm: Confirm,
    parent: QWidget,
    workbench: Workbench,
    device: Device,
    spec: CommandSpec,
    params: Mapping[str, Any],
    on_yes: Callable[[], None],
    *,
    old_value: Any = None,
) -> None:
    """Call ``on_yes`` at once for a read, and for anything else when the person says so; where writing is not armed,
    the question arms as well.

    ``old_value``: what the question shows as the value now, where the caller knows better than the device's facts.
    """
    is_unarmed = spec.has_effect and not workbench.arming.may_change
    if spec.risk is Risk.READ and not is_unarmed:
        on_yes()
        return
    if is_unarmed:
        spec, on_yes = armed_first(workbench, device, spec, on_yes)
    if old_value is None and spec.changes:
        old_value = workbench.state(device.id).facts.get(spec.changes)
    confirm(parent, device=device, spec=spec, params=params, old_value=old_value, on_yes=on_yes)


def why_not(workbench: Workbench, device: Device, command: str, *, is_live: bool) -> str:
    """Why ``command`` cannot be sent to ``device`` now, and what to do; empty where it can."""
    if not is_live:
        return QCoreApplication.translate(
            "Command", "Nothing can be sent from here: this is a recording, or a log opened for reading."
        )
    if not any(spec.name == command for spec in workbench.commands(device.id)):
        text = QCoreApplication.translate("Command", "{name} has no such command.").format(name=device.name)
        return model_text(workbench.unsupported(device.id).get(command, "")) or text
    state = workbench.state(device.id)
    if state.link is LinkState.ONLINE:
        return ""
    told = state.link_text or QCoreApplication.translate("Command", "Connect it first.")
    return QCoreApplication.translate("Command", "{name} is not connected. {why}").format(name=device.name, why=told)


_SHORT_TYPES: Final = frozenset({ParamType.INTEGER, ParamType.DECIMAL, ParamType.BOOLEAN})
_NAME_ROLE: Final = int(Qt.ItemDataRole.UserRole)
_REASON_ROLE: Final = _NAME_ROLE + 1


def ask_in_a_dialog(
    parent: QWidget,
    *,
    device: Device,
    spec: CommandSpec,
    params: Mapping[str, Any],
    old_value: Any,
    on_yes: Callable[[], None],
) -> object:
    from ui.dialogs.confirm import confirm_command  # loaded when the first write is asked for

    return confirm_command(parent, device=device, spec=spec, params=params, old_value=old_value, on_yes=on_yes)


class ParamField(QWidget):
    """Editor of one parameter with its unit, its limits and, under it, what is wrong."""

    edited = Signal()

    def __init__(
        self, spec: ParamSpec, theme: Theme, parent: QWidget | None = None, *, has_lines: bool = False
    ) -> None:
        super().__init__(parent)
        self.spec = spec = shown_param(spec)
        self._theme = theme
        self._has_lines = has_lines
        self._has_been_left = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(space(1))
        self.title = QLabel(spec.title if spec.required else self.tr("{title} (optional)").format(title=spec.title))
        self.title.setWordWrap(True)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(space(2))
        if spec.type in _SHORT_TYPES:  # beside its title: a form should be seen as a whole
            row.addWidget(self.title, 1)
        else:
            layout.addWidget(self.title)
        self.editor = self._make_editor(row)
        layout.addLayout(row)
        self.hint = QLabel(self._hint_text())
        self.hint.setWordWrap(True)
        layout.addWidget(self.hint)
        self.hint.setVisible(bool(self.hint.text()))
        self.error = QLabel()
        self.error.setWordWrap(True)
        self.error.setVisible(False)
        layout.addWidget(self.error)
        self.title.setBuddy(self.editor)
        self.editor.setObjectName(spec.name)
        name = f"{spec.title} ({spec.unit})" if spec.unit else spec.title
        self.editor.setAccessibleName(name)
        self.editor.installEventFilter(self)
        theme.changed.connect(self._colour)
        self._colour()
        if spec.default is not None:
            self.set_value(spec.default)

    # ---------------------------------------------------------------- editors

    def _make_editor(self, row: QHBoxLayout) -> QWidget:
        match self.spec.type:
            case ParamType.BOOLEAN:
                check = QCheckBox(self.tr("yes"))
                check.toggled.connect(self._on_edit)
                row.addWidget(check, 1)
                return check
            case ParamType.CHOICE:
                return self._choice_editor(row)
            case ParamType.PEM:
                return self._area_editor(row, "-----BEGIN …")
            case ParamType.TEXT if self._has_lines or self.spec.is_multiline:
                return self._area_editor(row)
            case ParamType.TEXT if self.spec.choices:
                return self._suggestion_editor(row)
            case ParamType.INTEGER | ParamType.DECIMAL | ParamType.TIME:
                return self._line_editor(row)
            case ParamType.TEXT | ParamType.SECRET | ParamType.FILE:
                return self._line_editor(row)
            case ParamType.PORT:
                return self._port_editor(row)

    def _choice_editor(self, row: QHBoxLayout) -> QComboBox:
        combo = QComboBox()
        if not self.spec.required or self.spec.default is None:
            combo.addItem(self.tr("– choose –") if self.spec.required else self.tr("– none –"), None)
        for key, title in self.spec.choices:
            combo.addItem(title, key)
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(8)
        combo.currentIndexChanged.connect(self._on_edit)
        row.addWidget(combo, 1)
        self._unit_label(row)
        return combo

    def _suggestion_editor(self, row: QHBoxLayout) -> QComboBox:
        """Text with the usual ones to choose from."""
        combo = QComboBox()
        combo.setEditable(True)
        combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        combo.addItems([text for text, _title in self.spec.choices])
        combo.setCurrentIndex(-1)
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(8)
        combo.editTextChanged.connect(self._on_edit)
        row.addWidget(combo, 1)
        self._unit_label(row)
        return combo

    def _port_editor(self, row: QHBoxLayout) -> PortPicker:
        picker = PortPicker()
        picker.edited.connect(self._on_edit)
        row.addWidget(picker, 1)
        return picker

    def _area_editor(self, row: QHBoxLayout, placeholder: str = "") -> QPlainTextEdit:
        area = QPlainTextEdit()
        area.setFont(fixed_font())
        area.setPlaceholderText(placeholder)
        area.setTabChangesFocus(True)
        area.setFixedHeight(area.fontMetrics().height() * 5 + space(3))
        area.textChanged.connect(self._on_edit)
        row.addWidget(area, 1)
        return area

    def _line_editor(self, row: QHBoxLayout) -> QLineEdit:
        spec = self.spec
        line = QLineEdit()
        row.addWidget(line, 1)
        line.textEdited.connect(self._on_edit)
        line.setClearButtonEnabled(not spec.required)
        if spec.type in (ParamType.INTEGER, ParamType.DECIMAL):
            line.setAlignment(Qt.AlignmentFlag.AlignRight)
            line.setFont(fixed_font())
        elif spec.type is ParamType.SECRET:
            line.setEchoMode(QLineEdit.EchoMode.Password)
        elif spec.type is ParamType.TIME:
            line.setFont(fixed_font())
            line.setPlaceholderText("2026-05-01T10:00:00Z")
            self._side_button(row, self.tr("Now"), self._set_now)
        elif spec.type is ParamType.FILE:
            self._side_button(row, self.tr("Choose…"), self._choose_file)
        self._unit_label(row)
        return line

    def _unit_label(self, row: QHBoxLayout) -> None:
        if self.spec.unit:
            row.addWidget(QLabel(self.spec.unit))

    def _side_button(self, row: QHBoxLayout, text: str, slot: Callable[[], None]) -> None:
        button = QToolButton()
        button.setText(text)
        button.setAccessibleName(f"{self.spec.title}: {text}")
        button.clicked.connect(slot)
        row.addWidget(button)

    def _set_now(self) -> None:
        self.set_value(datetime.now(UTC).replace(microsecond=0))
        self._on_edit()

    def _choose_file(self) -> None:
        dialog = QFileDialog(self, self.spec.title)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self._take_file)
        dialog.open()

    def _take_file(self, path: str) -> None:
        self.set_value(path)
        self._on_edit()

    def _hint_text(self) -> str:
        spec = self.spec
        parts: list[str] = []
        unit = f" {spec.unit}" if spec.unit else ""
        if spec.minimum is not None and spec.maximum is not None:
            parts.append(self.tr("{low} to {high}{unit}").format(low=spec.minimum, high=spec.maximum, unit=unit))
        elif spec.minimum is not None:
            parts.append(self.tr("at least {low}{unit}").format(low=spec.minimum, unit=unit))
        elif spec.maximum is not None:
            parts.append(self.tr("at most {high}{unit}").format(high=spec.maximum, unit=unit))
        if spec.max_bytes is not None and spec.type is not ParamType.PORT:
            parts.append(self.tr("at most {count} bytes").format(count=spec.max_bytes))
        if spec.help:
            parts.append(spec.help)
        return ". ".join(part.rstrip(".") for part in parts)

    # ---------------------------------------------------------------- value

    def raw(self) -> Any:
        """What stands in the editor; None where nothing does."""
        editor = self.editor
        if isinstance(editor, QCheckBox):
            return editor.isChecked()
        if isinstance(editor, PortPicker):
            return editor.address() or None
        if isinstance(editor, QComboBox):
            return editor.currentText() or None if editor.isEditable() else editor.currentData()
        if isinstance(editor, QPlainTextEdit):
            return editor.toPlainText() or None
        if isinstance(editor, QLineEdit):
            return editor.text() or None
        return None

    def set_value(self, value: Any) -> None:
        editor = self.editor
        if isinstance(editor, QCheckBox):
            editor.setChecked(value is True or str(value).strip().lower() in ("true", "yes", "on", "1"))
        elif isinstance(editor, PortPicker):
            editor.set_address("" if value is None else str(value))
        elif isinstance(editor, QComboBox) and editor.isEditable():
            editor.setEditText("" if value is None else str(value))
        elif isinstance(editor, QComboBox):
            at = next((i for i in range(editor.count()) if _same(editor.itemData(i), value)), -1)
            if at >= 0:
                editor.setCurrentIndex(at)
        elif isinstance(editor, QPlainTextEdit):
            editor.setPlainText("" if value is None else str(value))
        elif isinstance(editor, QLineEdit):
            text = value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
            editor.setText("" if text is None else str(text))

    def check(self) -> Any:
        """The typed value.

        Raises:
            ParameterError: it is wrong; the sentence already stands under the editor.
        """
        self._has_been_left = True
        try:
            value = self._parse()
        except ParameterError as fault:
            self.show_error(str(fault))
            raise
        self.show_error("")
        return value

    def fault(self) -> str:
        """What is wrong with what stands in the editor now; empty when nothing is. Says nothing under it."""
        try:
            self._parse()
        except ParameterError as wrong:
            return str(wrong)
        return ""

    def value(self) -> Any:
        """The typed value; None where it is missing or wrong. Says nothing under it."""
        try:
            return self._parse()
        except ParameterError:
            return None

    def _parse(self) -> Any:
        raw = self.raw()
        if raw is None and self.spec.type is ParamType.TEXT and (not self.spec.required or self.spec.default):
            raw = self.spec.default if self.spec.default is not None else ""
        return self.spec.parse(raw)

    def show_error(self, text: str) -> None:
        self.error.setText(text)
        self.error.setVisible(bool(text))
        self.editor.setAccessibleDescription(text or self.hint.text())

    def _on_edit(self, *_args: object) -> None:
        if self._has_been_left:
            self._check_quietly()
        self.edited.emit()

    def _check_quietly(self) -> None:
        try:
            self.check()
        except ParameterError:
            return  # the sentence stands under the editor

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.FocusOut and watched is self.editor and self.raw() is not None:
            self._check_quietly()
        return super().eventFilter(watched, event)

    def _colour(self) -> None:
        for label, role in ((self.hint, Role.DIMMED), (self.error, Role.BAD)):
            palette = label.palette()
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
            label.setPalette(palette)


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


class VerbButton(QPushButton):
    """A button whose words take a second line, and are shortened there, when they do not fit in one.

    ``text()`` and the tool tip have them whole.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._whole = ""

    def setText(self, text: str) -> None:
        self._whole = text
        self.setAccessibleName(text)
        self.setToolTip(text)
        self._fit()

    def text(self) -> str:
        return self._whole

    def shown_text(self) -> str:
        """What is drawn."""
        return super().text().replace("&&", "&")

    def _fit(self) -> None:
        room, metrics = max(0, self.width() - space(4)), self.fontMetrics()
        first, rest = self._whole, ""
        while metrics.horizontalAdvance(first) > room and " " in first:
            first = first.rpartition(" ")[0]
            rest = self._whole[len(first) + 1 :]
        lines = [metrics.elidedText(line, Qt.TextElideMode.ElideMiddle, room) for line in (first, rest) if line]
        self.setMinimumHeight(max(1, len(lines)) * metrics.height() + space(5))
        super().setText("\n".join(lines).replace("&", "&&"))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()


class CommandPanel(QWidget):
    """Choose, fill in, press. Reads never ask; everything else goes through ``confirm``."""

    submitted = Signal(int)  # an interaction was sent from here, or its link was pressed

    def __init__(
        self,
        workbench: Workbench,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        confirm: Confirm | None = None,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._zone = zone
        self._theme = theme
        self._confirm: Confirm = confirm if confirm is not None else ask_in_a_dialog
        self._device: Device | None = None
        self._spec: CommandSpec | None = None
        self._fields: list[ParamField] = []
        self._remembered: dict[tuple[str, str], dict[str, Any]] = {}  # (adapter, command); secrets are never kept
        self._last_command: dict[str, str] = {}  # adapter -> command
        self._sent: int | None = None
        self._split_is_chosen = False
        self._divide_timer = QTimer(self, singleShot=True, interval=0)
        self._divide_timer.timeout.connect(self._divide)
        self.setAccessibleName(self.tr("Command"))
        self._build()
        theme.changed.connect(self._colour)
        self._colour()
        self.set_device(None)

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._stack = QStackedWidget()
        outer.addWidget(self._stack)

        self._empty = QLabel()
        self._empty.setWordWrap(True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setMargin(space(6))
        self._stack.addWidget(self._empty)

        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(space(2), space(2), space(2), space(2))
        layout.setSpacing(space(2))
        layout.addLayout(self._build_head())
        self._split = split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.addWidget(self._build_list())
        split.addWidget(self._build_form())
        split.splitterMoved.connect(self._on_split_moved)
        layout.addWidget(split, 1)
        layout.addLayout(self._build_foot())
        self._stack.addWidget(page)

    def _build_head(self) -> QVBoxLayout:
        head = QVBoxLayout()
        head.setSpacing(space(1))
        self.title = QLabel()
        bold = QFont(self.title.font())
        bold.setBold(True)
        bold.setPointSizeF(bold.pointSizeF() * 1.15)
        self.title.setFont(bold)
        self.title.setWordWrap(True)
        head.addWidget(self.title)
        row = QHBoxLayout()
        row.setSpacing(space(1))
        self._link_icon = QLabel()
        self.link = ClippedLabel(lines=2)
        row.addWidget(self._link_icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.link, 1)
        head.addLayout(row)
        self.way = ClippedLabel(lines=2)  # which of several ways to the meter is in use
        self.way.hide()
        head.addWidget(self.way)
        self.held = ClippedLabel(lines=3)  # what closing this program does to the meter
        self.held.hide()
        head.addWidget(self.held)
        self.issues = ClippedLabel(lines=2)
        self.issues.hide()
        head.addWidget(self.issues)
        return head

    def _build_list(self) -> QWidget:
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(space(1))
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search commands"))
        self.search.setAccessibleName(self.tr("Search commands"))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._search)
        self.search.returnPressed.connect(self._take_first)
        self.search.installEventFilter(self)
        layout.addWidget(self.search)
        self.commands = QTreeWidget()
        self.commands.setAccessibleName(self.tr("Commands"))
        self.commands.setHeaderHidden(True)
        self.commands.setUniformRowHeights(True)
        self.commands.setIndentation(space(4))
        self.commands.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.commands.currentItemChanged.connect(self._on_current)
        self.commands.itemActivated.connect(self._on_activated)
        layout.addWidget(self.commands, 1)
        self._find_action = QAction(self)
        self._find_action.setShortcut(Qt.Modifier.CTRL | Qt.Key.Key_F)
        self._find_action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        self._find_action.triggered.connect(self.focus_search)
        self.addAction(self._find_action)
        return box

    def _build_form(self) -> QWidget:
        self._scroll = QScrollArea()
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the fields in it are what is reached
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._form = QWidget()
        self._scroll.setWidget(self._form)
        self._form_layout = QVBoxLayout(self._form)
        self._form_layout.setContentsMargins(0, space(1), space(1), 0)
        self._form_layout.setSpacing(space(2))
        return self._scroll

    def _build_foot(self) -> QVBoxLayout:
        foot = QVBoxLayout()
        foot.setSpacing(space(2))
        row = QHBoxLayout()
        row.setSpacing(space(1))
        self._risk_icon = QLabel()
        self.risk = QLabel()
        self.risk.setWordWrap(True)
        row.addWidget(self._risk_icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.risk, 1)
        foot.addLayout(row)
        self.caution = QLabel()  # what to know before what stands in the form is sent
        self.caution.setWordWrap(True)
        self.caution.setTextFormat(Qt.TextFormat.PlainText)
        self.caution.hide()
        foot.addWidget(self.caution)
        self.reason = ClippedLabel(lines=2)  # why the button cannot be pressed
        self.reason.hide()
        foot.addWidget(self.reason)
        self.send = VerbButton()
        bold = QFont(self.send.font())
        bold.setBold(True)
        self.send.setFont(bold)
        self.send.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.send.clicked.connect(self.press)
        foot.addWidget(self.send)
        self.outcome = QLabel()
        self.outcome.setWordWrap(True)
        self.outcome.setTextFormat(Qt.TextFormat.RichText)
        self.outcome.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )
        self.outcome.linkActivated.connect(self._on_link)
        self.outcome.setAccessibleName(self.tr("Outcome of the last command"))
        foot.addWidget(self.outcome)
        return foot

    # ---------------------------------------------------------------- the meter

    @property
    def device(self) -> str | None:
        return self._device.id if self._device is not None else None

    def set_device(self, device: str | None) -> None:
        """Show what ``device`` can be told."""
        changed = device != self.device
        self._remember()
        try:
            self._device = self._workbench.device(device) if device else None
        except WorkbenchError:
            self._device = None
        if changed:
            self._sent = None
            self.outcome.clear()
        self._spec = None
        if self._device is None:
            self._show_empty(
                self.tr("No meter chosen.\nChoose one in the tree on the left to see what it can be told.")
            )
            return
        specs = self._workbench.commands(self._device.id)
        refused = self._workbench.unsupported(self._device.id)
        if not specs and not refused:
            text = self.tr("{name} takes no commands itself.\nChoose a meter or a gateway below it.")
            self._show_empty(text.format(name=self._device.name))
            return
        self._stack.setCurrentIndex(1)
        self.title.setText(self._device.name)
        self._show_link(self._workbench.state(self._device.id))
        self._show_way(self._device)
        self._show_issues()
        self._fill(specs, refused)
        wanted = self._last_command.get(self._device.adapter) or next((s.name for s in specs), "")
        self.choose(wanted)

    def empty_text(self) -> str:
        """What the panel says while it has no commands to show; empty otherwise."""
        return self._empty.text() if self._stack.currentIndex() == 0 else ""

    def _show_empty(self, text: str) -> None:
        self._empty.setText(text)
        self._stack.setCurrentIndex(0)

    def _show_link(self, state: DeviceState) -> None:
        look = LINK_LOOKS[state.link]
        text = link_word(state.link)
        limits = field_limits(self._workbench, self._device) if self._device is not None else None
        if limits is not None and state.link is LinkState.ONLINE:
            look = HEARD_LOOKS[heard(state, limits, self._workbench.clock.now())]
            text = look.text
            if state.last_contact is not None:
                moment = f"{state.last_contact.astimezone(self._zone):%Y-%m-%d %H:%M:%S %Z}"
                text = self.tr("{state}, last heard {time}").format(state=link_word(state.link), time=moment)
        self._link_icon.setPixmap(self._theme.icon(look).pixmap(QSize(16, 16), self.devicePixelRatioF()))
        if state.link_text:
            text = f"{text}: {state.link_text}"
        elif state.busy_with:
            text = self.tr("{state}, busy with {what}").format(state=text, what=state.busy_with)
        fetched = transfer_text(state)
        self.link.setText(f"{text}\n{fetched}" if fetched else text)
        held = held_text(state)
        self.held.setText(held)
        self.held.setVisible(bool(held))
        self._tint(self.held, Role.WARNING)

    def _show_way(self, device: Device) -> None:
        types = self._workbench.adapter_types()
        text = reached_text(device, types)
        self.way.setText(text)
        self.way.setVisible(bool(text))
        self.way.setAccessibleDescription(other_ways_text(device, types))
        self._tint(self.way, Role.DIMMED)

    def _show_issues(self) -> None:
        """What is open about this meter; nothing where nothing is."""
        found = self._workbench.issues(self.device) if self.device is not None else ()
        text = "; ".join(issue_text(issue) for issue in found)
        words = self.tr("Open issue: {what}") if len(found) == 1 else self.tr("{n} open issues: {what}")
        self.issues.setText(words.format(n=len(found), what=text) if found else "")
        self.issues.setVisible(bool(found))
        self._tint(self.issues, Role.WARNING)

    def _fill(self, specs: Sequence[CommandSpec], refused: Mapping[str, str]) -> None:
        titles = {
            CommandKind.READ: self.tr("Read"),
            CommandKind.CONTROL: self.tr("Control"),
            CommandKind.WRITE: self.tr("Write"),
            CommandKind.TOKEN: self.tr("Credit and tokens"),
        }
        self.commands.blockSignals(True)
        self.commands.clear()
        for kind, title in titles.items():
            group = [spec for spec in specs if spec.kind is kind]
            if not group:
                continue
            head = self._group_item(title)
            for spec in map(shown_command, group):
                item = QTreeWidgetItem(head, [spec.title])
                item.setData(0, _NAME_ROLE, spec.name)
                item.setToolTip(0, spec.help or spec.title)
        if refused:
            head = self._group_item(self.tr("Not on this meter"))
            for name, reason in ((name, model_text(why)) for name, why in refused.items()):
                item = QTreeWidgetItem(head, [command_text(name)])
                why = QTreeWidgetItem(item, [reason])
                for line in (item, why):
                    line.setData(0, _REASON_ROLE, reason)
                    line.setToolTip(0, reason)
                    line.setFlags(Qt.ItemFlag.ItemIsEnabled)
                    line.setForeground(0, self._theme.colour(Role.DIMMED))
        self.commands.expandAll()
        self.commands.blockSignals(False)
        self._search(self.search.text())

    def _on_split_moved(self, _position: int, _index: int) -> None:
        self._split_is_chosen = True

    def _divide(self) -> None:
        """Give the form the height it wants and the list the rest, but never less than five lines."""
        total = self._split.height()
        if self._split_is_chosen or total <= 0:
            return
        wanted = self._form_layout.totalHeightForWidth(self._scroll.viewport().width()) + space(2)
        if wanted <= 0:
            wanted = self._form.sizeHint().height()
        line = self.commands.fontMetrics().height() + space(1)
        least = min(total // 3, self.search.sizeHint().height() + 5 * line)
        form = max(min(wanted, total - least), space(12))
        self._split.setSizes([total - form, form])
        current = self.commands.currentItem()
        if current is not None:  # the list may have got lower
            self.commands.scrollToItem(current)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._divide_timer.start()

    def _group_item(self, title: str) -> QTreeWidgetItem:
        head = QTreeWidgetItem(self.commands, [title])
        head.setFlags(Qt.ItemFlag.ItemIsEnabled)
        bold = QFont(self.commands.font())
        bold.setBold(True)
        head.setFont(0, bold)
        return head

    def _items(self) -> list[QTreeWidgetItem]:
        found: list[QTreeWidgetItem] = []
        for at in range(self.commands.topLevelItemCount()):
            head = self.commands.topLevelItem(at)
            if head is not None:
                children = (head.child(i) for i in range(head.childCount()))
                found += [child for child in children if child is not None]
        return found

    def _search(self, text: str) -> None:
        words = text.lower().split()
        for item in self._items():
            name = str(item.data(0, _NAME_ROLE) or "").lower().replace("_", " ")
            hay = f"{item.text(0).lower()} {name}"
            item.setHidden(not all(word in hay for word in words))
        for at in range(self.commands.topLevelItemCount()):
            head = self.commands.topLevelItem(at)
            if head is not None:
                children = (head.child(i) for i in range(head.childCount()))
                head.setHidden(all(child is None or child.isHidden() for child in children))

    def focus_search(self) -> None:
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def _take_first(self) -> None:
        first = next((i for i in self._items() if not i.isHidden() and i.data(0, _NAME_ROLE)), None)
        if first is not None:
            self.commands.setCurrentItem(first)
            self._focus_form()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.search and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if event.key() == Qt.Key.Key_Down:
                self.commands.setFocus(Qt.FocusReason.TabFocusReason)
                return True
            if event.key() == Qt.Key.Key_Escape and self.search.text():
                self.search.clear()
                return True
        return super().eventFilter(watched, event)

    # ---------------------------------------------------------------- the command

    def choose(self, command: str) -> None:
        """Select ``command`` in the list and show its form."""
        item = next((i for i in self._items() if i.data(0, _NAME_ROLE) == command), None)
        if item is None:
            self._show_form(None)
            return
        self.commands.setCurrentItem(item)
        if self._spec is None or self._spec.name != command:
            self._on_current(item, None)

    def prefill(self, device: str, command: str, params: Mapping[str, Any] | None = None) -> None:
        """Show ``command`` of ``device`` with ``params`` filled in; nothing is sent."""
        if device != self.device:
            self.set_device(device)
        self.search.clear()
        self.choose(command)
        for field in self._fields:
            if params is not None and field.spec.name in params:
                field.set_value(params[field.spec.name])
        self._show_reason()
        self._focus_form()

    def _focus_form(self) -> None:
        target = self._fields[0].editor if self._fields else self.send
        target.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_current(self, item: QTreeWidgetItem | None, _before: QTreeWidgetItem | None) -> None:
        name = item.data(0, _NAME_ROLE) if item is not None else None
        refusal = item.data(0, _REASON_ROLE) if item is not None else None
        if refusal and self._device is not None:
            self._show_refusal(str(refusal))
        if name is None or self._device is None:
            return
        self._remember()
        spec = next((s for s in self._workbench.commands(self._device.id) if s.name == name), None)
        self._show_form(spec)

    def _on_activated(self, item: QTreeWidgetItem, _column: int) -> None:
        if item.data(0, _NAME_ROLE):
            self._focus_form()

    def _show_form(self, spec: CommandSpec | None) -> None:
        self._spec = spec
        while self._form_layout.count():
            taken = self._form_layout.takeAt(0)
            widget = taken.widget() if taken is not None else None
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        self._fields = []
        self.send.setVisible(spec is not None)
        if spec is None or self._device is None:
            self.risk.clear()
            self._risk_icon.clear()
            self.reason.hide()
            self.caution.hide()
            return
        self._last_command[self._device.adapter] = spec.name
        if spec.help:
            words = QLabel(model_text(spec.help))
            words.setWordWrap(True)
            self._form_layout.addWidget(words)
        kept = self._remembered.get((self._device.adapter, spec.name), {})
        has_editor = is_directive(spec)
        if has_editor:
            editor = QPushButton(self.tr("Edit as rows…"))
            editor.setObjectName("editor")
            editor.clicked.connect(self.open_editor)
            self._form_layout.addWidget(editor)
            editor.show()
        for param in spec.params:
            field = ParamField(param, self._theme, has_lines=has_editor and param.name == "steps")
            if param.name in kept:
                field.set_value(kept[param.name])
            field.edited.connect(self._show_reason)
            self._fields.append(field)
            self._form_layout.addWidget(field)
            field.show()
        if not spec.params and not spec.help:
            words = QLabel(self.tr("Nothing to fill in."))
            self._form_layout.addWidget(words)
        self._form_layout.addStretch(1)
        self._order_tabs()
        self._divide_timer.start()
        self._show_risk(spec)
        self.send.setText(self.verb())
        self._show_reason()

    def open_editor(self) -> DirectiveDialog | None:
        """Edit the directive in the form as rows; nothing is sent. None: the command has no such form."""
        from ui.dialogs.directive import DirectiveDialog

        if self._spec is None or not is_directive(self._spec):
            return None
        given = {field.spec.name: str(field.raw() or "") for field in self._fields}
        dialog = DirectiveDialog(self._theme, self, name=given["id"], steps=given["steps"])
        dialog.taken.connect(self._take_directive)
        dialog.open()
        return dialog

    def _take_directive(self, name: str, steps: str) -> None:
        for field in self._fields:
            field.set_value({"id": name, "steps": steps}[field.spec.name])
        self._show_reason()
        self.send.setFocus(Qt.FocusReason.OtherFocusReason)

    def _show_refusal(self, reason: str) -> None:
        """In place of a form: why this meter cannot do what was chosen, whole."""
        self._remember()
        self._show_form(None)
        words = QLabel(reason)
        words.setObjectName("refusal")
        words.setWordWrap(True)
        self._form_layout.addWidget(words)
        words.show()
        self._form_layout.addStretch(1)
        self._divide_timer.start()

    def _show_reason(self) -> None:
        """The button can be pressed, or the line above it says why not."""
        reason = next((fault for field in self._fields if (fault := field.fault())), "")
        self.reason.setText(reason)
        self.reason.setVisible(bool(reason))
        self.send.setEnabled(not reason)
        self.send.setAccessibleDescription(reason)
        self._show_caution()

    def _show_caution(self) -> None:
        """What the command says about what stands in the form; it stands in the question too."""
        spec = self._spec
        caution = ""
        if spec is not None and spec.caution is not None:
            caution = spec.caution({field.spec.name: field.value() for field in self._fields})
        self.caution.setText(caution)
        self.caution.setVisible(bool(caution))
        self._tint(self.caution, Role.WARNING)

    def _order_tabs(self) -> None:
        before: QWidget = self.commands
        for field in self._fields:
            QWidget.setTabOrder(before, field.editor)
            before = field.editor
        QWidget.setTabOrder(before, self.send)

    def verb(self) -> str:
        """The words on the button: what it does, to which meter."""
        if self._spec is None or self._device is None:
            return ""
        if self._spec.verb:
            return model_text(self._spec.verb).replace("{device}", self._device.name)
        return self.tr("{command}: {device}").format(command=model_text(self._spec.title), device=self._device.name)

    def _show_risk(self, spec: CommandSpec) -> None:
        words = {
            Risk.READ: self.tr("Only reads."),
            Risk.WRITE: self.tr("Writes to the meter. You will be asked first."),
            Risk.DANGEROUS: self.tr("Dangerous. You will be asked first."),
            Risk.TOP: self.tr("Dangerous. You will be asked for the serial number."),
        }
        text = words[spec.risk]
        if spec.risk >= Risk.DANGEROUS and spec.warning:
            text = f"{text} {model_text(spec.warning)}"
        self.risk.setText(text)
        self._colour_risk()

    def _colour_risk(self) -> None:
        if self._spec is None:
            return
        role = {Risk.READ: Role.DIMMED, Risk.WRITE: Role.WARNING}.get(self._spec.risk, Role.BAD)
        self._tint(self.risk, role)
        self._risk_icon.setVisible(self._spec.risk is not Risk.READ)
        look = Look("risk", role, Shape.INFO if self._spec.risk is Risk.WRITE else Shape.WARNING_TRIANGLE)
        self._risk_icon.setPixmap(self._theme.icon(look).pixmap(QSize(16, 16), self.devicePixelRatioF()))

    def _tint(self, label: QLabel, role: Role) -> None:
        palette = label.palette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
        label.setPalette(palette)

    def _colour(self) -> None:
        self._tint(self._empty, Role.DIMMED)
        self._tint(self.reason, Role.DIMMED)
        self._tint(self.caution, Role.WARNING)
        self._colour_risk()
        if self._device is not None and self._stack.currentIndex() == 1:
            self._show_link(self._workbench.state(self._device.id))
            self._show_issues()
            self._show_outcome()

    # ---------------------------------------------------------------- sending

    def _remember(self) -> None:
        """Keep what stands in the form for this session; secrets never."""
        if self._spec is None or self._device is None or not self._fields:
            return
        kept = {f.spec.name: f.raw() for f in self._fields if f.spec.type is not ParamType.SECRET}
        self._remembered[(self._device.adapter, self._spec.name)] = {k: v for k, v in kept.items() if v is not None}

    def params(self) -> dict[str, Any] | None:
        """The checked parameters; None when something is wrong, which then stands under its field."""
        values: dict[str, Any] = {}
        first_wrong: ParamField | None = None
        for field in self._fields:
            try:
                value = field.check()
            except ParameterError:
                first_wrong = first_wrong or field
                continue
            if value is not None:
                values[field.spec.name] = value
        if first_wrong is not None:
            first_wrong.editor.setFocus(Qt.FocusReason.OtherFocusReason)
            self._scroll.ensureWidgetVisible(first_wrong)
            return None
        return values

    def press(self) -> None:
        """What the button does: check, ask where it must, send."""
        device, spec = self._device, self._spec
        if device is None or spec is None:
            return
        params = self.params()
        if params is None:
            self._say(self.tr("Nothing was sent: correct what is marked above."), Role.BAD)
            return
        wrong = spec.check(params) if spec.check is not None else ""
        if wrong:  # no question about what would be refused
            if self._fields:
                self._fields[0].show_error(wrong)
            self._say(self.tr("Nothing was sent. {reason}").format(reason=wrong), Role.BAD)
            return
        self._remember()
        ask_first(
            self._confirm, self, self._workbench, device, spec, params, partial(self._submit, device, spec, params)
        )

    def _submit(self, device: Device, spec: CommandSpec, params: Mapping[str, Any]) -> None:
        try:
            number = self._workbench.submit(device.id, spec.name, params)
        except ParameterError as fault:
            field = next((f for f in self._fields if f.spec.name == fault.parameter), None)
            if field is not None:
                field.show_error(str(fault))
            self._say(self.tr("Nothing was sent. {reason}").format(reason=fault), Role.BAD)
            return
        except WorkbenchError as fault:
            self._say(self.tr("Nothing was sent. {reason}").format(reason=fault), Role.BAD)
            return
        self._sent = number
        self._show_outcome()
        self.submitted.emit(number)

    def _say(self, text: str, role: Role) -> None:
        self._sent = None
        self._tint(self.outcome, role)
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        self.outcome.setText(escaped)

    def _show_outcome(self) -> None:
        """One line about the command sent last, with a link to it."""
        if self._sent is None:
            return
        item = self._workbench.interaction(self._sent)
        colour = self._theme.colour(Role.ACCENT).name()
        link = f'<a href="{self._sent}" style="color:{colour}">#{self._sent}</a>'
        if item is None or (not item.is_settled and item.failure is None and item.attempts == 0):
            words = self.tr("Saved as {link}, waiting at the gatekeeper.").format(link=link)
            if item is not None and item.seq > 0:
                words = self.tr("Saved as {link}: {status}.").format(link=link, status=status_word(item.status))
        else:
            words = self.tr("{link}: {status}.").format(link=link, status=status_word(item.status))
        role = Role.TEXT if item is None else STATUS_LOOKS[item.status].role
        said = self._answer_text(item) if item is not None else ""
        if said:
            words = f"{words} {_escape(said)}"
        self._tint(self.outcome, role)
        self.outcome.setText(words)

    def _answer_text(self, item: Interaction) -> str:
        """Why it waits or failed; of a token that reached the meter, whether it was accepted. Never the token."""
        accepted = token_accepted(item)
        if item.status is Status.SUCCESSFUL and accepted is not None:
            return self.tr("The meter accepted the token.") if accepted else self.tr("The meter refused the token.")
        return reason_text(item)

    def _on_link(self, target: str) -> None:
        if target.isdigit():
            self.submitted.emit(int(target))

    # ---------------------------------------------------------------- live

    def on_batch(self, changes: Sequence[object]) -> None:
        """Follow the meter's link and the command sent last."""
        for change in changes:
            match change:
                case DeviceState() if change.device == self.device:
                    self._show_link(change)
                case Interaction() if change.id == self._sent:
                    self._show_outcome()
                case Issue() if change.device == self.device:
                    self._show_issues()
                case Device() if change.id == self.device:
                    self.set_device(change.id)
                case _:
                    pass


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
