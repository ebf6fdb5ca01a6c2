"""What a person chooses for this computer: colours, language, times, sizes, folders, and how long writing is armed.

What the program keeps and where secrets go is told in the same place; both are as they are. Colours and times count at
once or at the next opening, language and size at the next start, which stands beside each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.config import Profile
from app.errors import ParameterError
from app.model.command import ParamSpec, ParamType
from ui.dialogs.lab import Errand, LabDialog
from ui.panels.command import ParamField
from ui.preferences import ARM_LEAST, ARM_MOST, LISTEN_HOST, SCALES, Language, Preferences, Times, is_host
from ui.theme import Role, Theme, ThemeMode, space
from ui.widgets.sentence_panel import tint, words_label

WIDTH: Final = 104  # letters
LANGUAGE_NAMES: Final = {  # each in itself
    Language.ENGLISH: "English",
    Language.GERMAN: "Deutsch",
    Language.FRENCH: "Français",
    Language.TURKISH: "Türkçe",
}

Look = Callable[[], Sequence[tuple[bool, str, str]]]
"""Good, what was found, what to do about it; for each finding. In a thread of its own."""


def look_at_keyring() -> Sequence[tuple[bool, str, str]]:
    """What the doctor says of the keyring. Takes up to some seconds."""
    from app.doctor import check_keyring

    return [(check.verdict == "ok", check.text, check.fix) for check in check_keyring()]


def own_addresses() -> Sequence[tuple[str, str]]:
    """Addresses of this computer, and whom each serves. Asks the name service."""
    from app.transports.own_addresses import addresses_of_this_machine

    return [(one.address, one.title) for one in addresses_of_this_machine()]


class SettingsDialog(LabDialog):
    """``themeChosen`` and the preferences' own signal tell what was saved.

    Args:
        workspace: the file that is open, to say how large it is.
        keyring, addresses: what is asked in a thread.
    """

    themeChosen = Signal(object)  # ThemeMode
    saved = Signal(str)  # what counts only later, in a sentence; empty where everything counts

    def __init__(
        self,
        theme: Theme,
        preferences: Preferences,
        profile: Profile | None = None,
        parent: QWidget | None = None,
        *,
        workspace: Path | None = None,
        keyring: Look = look_at_keyring,
        addresses: Callable[[], Sequence[tuple[str, str]]] = own_addresses,
    ) -> None:
        super().__init__(theme, parent, "settings")
        self._preferences = preferences
        self._profile = profile
        self._workspace = workspace
        self._heads: list[QLabel] = []
        self._quiet: list[QLabel] = [self.missing]
        self.name_it(self.tr("Settings"), self.tr("Leave as it was"), self.tr("Save the settings"))
        self._build()
        self.go.clicked.connect(self._take)
        self._colour()
        self._check()
        self.fit(WIDTH)
        self.theme_field.editor.setFocus()
        Errand(keyring, self._show_keyring, lambda fault: self.keyring.setText(str(fault)), self)
        Errand(addresses, self._show_addresses, lambda _fault: None, self)

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        kept = self._preferences
        self.theme_field = self._choice(
            "theme",
            self.tr("Colours"),
            (
                (ThemeMode.SYSTEM.value, self.tr("as the system has them")),
                (ThemeMode.LIGHT.value, self.tr("light")),
                (ThemeMode.DARK.value, self.tr("dark")),
            ),
            self._theme.mode.value,
        )
        named = [(one.value, name) for one, name in LANGUAGE_NAMES.items()]
        if kept.language not in (Language.SYSTEM, *LANGUAGE_NAMES):
            named.append((kept.language.value, kept.language.value))
        self.language = self._choice(
            "language",
            self.tr("Language"),
            ((Language.SYSTEM.value, self.tr("as the system has it")), *named),
            kept.language.value,
            self.tr("Counts from the next start."),
        )
        self.times = self._choice(
            "times",
            self.tr("Times on screen"),
            (
                (Times.LOCAL.value, self.tr("local time of this computer")),
                (Times.UTC.value, self.tr("UTC")),
            ),
            kept.times.value,
            self.tr("Counts when a workspace is opened next. Files have UTC always."),
        )
        scales = tuple((str(one), self.tr("{n} %").format(n=one)) for one in SCALES if one)
        self.scale = self._choice(
            "scale",
            self.tr("Size of everything"),
            (("0", self.tr("as the system has it")), *scales),
            str(kept.scale),
            self.tr("For a screen whose size the system gets wrong. Counts from the next start."),
        )
        self.folder = FolderField(self.tr("Folder for exports"), kept.export_folder, self._theme)
        self.folder.edited.connect(self._check)
        self.listen = AddressField(self.tr("Devices dial in at"), kept.listen_host, self._theme)
        self.listen.edited.connect(self._check)
        self.arm = ParamField(
            ParamSpec(
                name="settings.arm",
                title=self.tr("Armed for"),
                type=ParamType.INTEGER,
                unit="min",
                minimum=Decimal(ARM_LEAST),
                maximum=Decimal(ARM_MOST),
                help=self.tr("So long may be written to meters once that is armed; then the window only reads."),
            ),
            self._theme,
        )
        self.arm.set_value(kept.arm_minutes)
        self.arm.edited.connect(self._check)
        self._add_part(self.tr("Window"), (self.theme_field, self.language, self.times, self.scale))
        self._add_part(self.tr("Work"), (self.folder, self.listen, self.arm))
        self.keyring = words_label()
        self.keyring.setObjectName("settings.keyring")
        self.keyring.setAccessibleName(self.tr("Keyring"))
        self.keyring.setText(self.tr("The keyring of this computer is being asked…"))
        self.kept = words_label()
        self.kept.setObjectName("settings.kept")
        self.kept.setAccessibleName(self.tr("What is kept"))
        self.kept.setText(self._kept_text())
        self._add_facts(
            self.tr("As it is"), ((self.tr("Passwords and keys"), self.keyring), (self.tr("What is kept"), self.kept))
        )
        self.form.addStretch(1)

    def _choice(
        self, name: str, title: str, choices: Sequence[tuple[str, str]], value: str, hint: str = ""
    ) -> ParamField:
        field = ParamField(
            ParamSpec(
                name=f"settings.{name}",
                title=title,
                type=ParamType.CHOICE,
                choices=tuple(choices),
                default=value,
                help=hint,
            ),
            self._theme,
        )
        field.edited.connect(self._check)
        return field

    def _add_part(self, title: str, fields: Sequence[QWidget]) -> None:
        """Two columns of fields under a heading."""
        self._head(title)
        grid = QGridLayout()
        grid.setHorizontalSpacing(space(6))
        grid.setVerticalSpacing(space(3))
        for place, one in enumerate(fields):
            column = QVBoxLayout()  # each at the top of its cell, as wide as the cell
            column.addWidget(one)
            column.addStretch(1)
            grid.addLayout(column, place // 2, place % 2)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        self.form.addLayout(grid)

    def _add_facts(self, title: str, facts: Sequence[tuple[str, QLabel]]) -> None:
        self._head(title)
        for name, label in facts:
            above = QLabel(name)
            self._quiet.append(above)
            column = QVBoxLayout()
            column.setSpacing(space(1))
            column.addWidget(above)
            column.addWidget(label)
            self.form.addLayout(column)

    def _head(self, title: str) -> None:
        if self._heads:
            line = QFrame()
            line.setFrameShape(QFrame.Shape.HLine)
            line.setFrameShadow(QFrame.Shadow.Sunken)
            self.form.addWidget(line)
        head = QLabel(title)
        font = head.font()
        font.setBold(True)
        head.setFont(font)
        self._heads.append(head)
        self.form.addWidget(head)

    def _kept_text(self) -> str:
        from app.program_log import BACKUPS, BYTES

        parts = [self.tr("A workspace keeps every interaction, byte and sample until its file is deleted.")]
        file = self._workspace
        if file is not None and file.exists():
            files = (file, file.with_name(f"{file.name}-wal"))  # the second one: what was written last
            size = self.locale().formattedDataSize(sum(one.stat().st_size for one in files if one.exists()), 0)
            parts.append(self.tr("{name} takes {size} now.").format(name=file.name, size=size))
        most = self.locale().formattedDataSize(BYTES * (BACKUPS + 1), 0)
        parts.append(self.tr("The program's own log takes {size} at most; the oldest lines go.").format(size=most))
        if self._profile is not None:
            parts.append(
                self.tr("Settings: {config}\nWorkspaces: {data}\nProgram's log and crash reports: {logs}").format(
                    config=self._profile.config, data=self._profile.data, logs=self._profile.logs
                )
            )
        return "\n".join(parts)

    # ---------------------------------------------------------------- what was asked for

    def _show_keyring(self, findings: Sequence[tuple[bool, str, str]]) -> None:
        self.keyring.setText("\n".join(part for _good, text, fix in findings for part in (text, fix) if part))

    def _show_addresses(self, addresses: Sequence[tuple[str, str]]) -> None:
        self.listen.offer(addresses)

    # ---------------------------------------------------------------- checking and saving

    def _fault(self) -> str:
        if self.folder.fault():
            return self.tr("Still needed: a folder that is there, or none.")
        if self.listen.fault():
            return self.tr("Still needed: an address of this computer.")
        return self.tr("Still needed: a number of minutes.") if self.arm.fault() else ""

    def _check(self) -> None:
        fault = self._fault()
        self.missing.setText(fault)
        self.go.setEnabled(not fault)

    def _take(self) -> None:
        kept = self._preferences
        try:
            arm = int(self.arm.check())
        except ParameterError:
            return  # it stands under its field
        if self._fault():
            return
        before = kept.language, kept.scale
        kept.language = Language(str(self.language.raw()))
        kept.scale = int(self.scale.raw())
        kept.times = Times(str(self.times.raw()))
        kept.export_folder = self.folder.folder()
        kept.listen_host = self.listen.address()
        kept.arm_minutes = arm
        mode = ThemeMode(str(self.theme_field.raw()))
        if mode is not self._theme.mode:
            self.themeChosen.emit(mode)
        is_later = (kept.language, kept.scale) != before
        self.saved.emit(self.tr("Language and size count from the next start of Meterwright.") if is_later else "")
        self.accept()

    def _colour(self) -> None:
        for label in self._quiet:
            tint(label, self._theme, Role.DIMMED)


class _Field(QWidget):
    """A title, an editor, and what is wrong with it."""

    edited = Signal()

    def __init__(self, title: str, hint: str, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self.title = QLabel(title)
        self.hint = QLabel(hint)
        self.hint.setWordWrap(True)
        self.error = QLabel()
        self.error.setWordWrap(True)
        self.error.hide()
        self.row = QHBoxLayout()
        self.row.setSpacing(space(2))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        column.addWidget(self.title)
        column.addLayout(self.row)
        column.addWidget(self.hint)
        column.addWidget(self.error)
        theme.changed.connect(self._colour)
        self._colour()

    def fault(self) -> str:
        """What is wrong, empty where nothing is."""
        raise NotImplementedError

    def _on_edit(self) -> None:
        fault = self.fault()
        self.error.setText(fault)
        self.error.setVisible(bool(fault))
        self.edited.emit()

    def _colour(self) -> None:
        tint(self.hint, self._theme, Role.DIMMED)
        tint(self.error, self._theme, Role.BAD)


class FolderField(_Field):
    """A folder that is there, or none."""

    def __init__(self, title: str, folder: Path | None, theme: Theme) -> None:
        super().__init__(title, "", theme)
        self.hint.setText(self.tr("Offered first when a file is written for others. Empty: where the last one went"))
        self.editor = QLineEdit(str(folder) if folder is not None else "")
        self.editor.setObjectName("settings.folder")
        self.editor.setAccessibleName(title)
        self.editor.setClearButtonEnabled(True)
        self.editor.textChanged.connect(lambda _text: self._on_edit())
        self.title.setBuddy(self.editor)
        self.choose = QPushButton(self.tr("Choose…"))
        self.choose.setObjectName("settings.folder.choose")
        self.choose.setAccessibleName(self.tr("Choose the folder for exports"))
        self.choose.setAutoDefault(False)
        self.choose.clicked.connect(self._choose)
        self.row.addWidget(self.editor, 1)
        self.row.addWidget(self.choose)

    def folder(self) -> Path | None:
        text = self.editor.text().strip()
        return Path(text).expanduser() if text else None

    def fault(self) -> str:
        folder = self.folder()
        if folder is None:
            return ""
        return "" if folder.is_absolute() and folder.is_dir() else self.tr("There is no such folder on this computer.")

    def _choose(self) -> None:
        dialog = QFileDialog(self, self.title.text(), self.editor.text().strip())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(self.editor.setText)
        dialog.open()


class AddressField(_Field):
    """An address that is listened at: chosen from those of this computer, or typed."""

    def __init__(self, title: str, address: str, theme: Theme) -> None:
        super().__init__(title, "", theme)
        self.hint.setText(
            self.tr("Offered in the form of a new device that connects to this computer; what is set up stays")
        )
        self.editor = QComboBox()
        self.editor.setObjectName("settings.listen")
        self.editor.setEditable(True)
        self.editor.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.editor.setAccessibleName(title)
        line = self.editor.lineEdit()
        assert line is not None
        line.setAccessibleName(title)
        self.editor.addItem(LISTEN_HOST)
        self.editor.setEditText(address)
        self.editor.editTextChanged.connect(lambda _text: self._on_edit())
        self.title.setBuddy(self.editor)
        self.row.addWidget(self.editor, 1)

    def address(self) -> str:
        """What is kept: the address without the words behind it in the list."""
        text = self.editor.currentText().strip()
        at = self.editor.findText(text, Qt.MatchFlag.MatchExactly)
        return str(self.editor.itemData(at) or text) if at >= 0 else text

    def offer(self, addresses: Sequence[tuple[str, str]]) -> None:
        """Addresses to choose from; what stands there stays."""
        text = self.editor.currentText()
        was_blocked = self.editor.blockSignals(True)
        self.editor.clear()
        for address, words in (*addresses, ("0.0.0.0", self.tr("every network of this computer"))):
            self.editor.addItem(f"{address}  ({words})", address)
        self.editor.setEditText(text)
        self.editor.blockSignals(was_blocked)

    def fault(self) -> str:
        return "" if is_host(self.address()) else self.tr("Type the name or address of this computer.")
