"""A note on a moment: what was seen, when, and on which device."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QPlainTextEdit, QPushButton, QWidget

from app.errors import ParameterError
from app.lab.session import MAX_TEXT, Note
from app.model.command import ParamSpec, ParamType
from ui.dialogs.lab import LabDialog, TimeField
from ui.panels.command import ParamField
from ui.theme import Theme

WIDTH: Final = 72  # letters


class NoteDialog(LabDialog):
    """Writes a note, or changes one that is there.

    Args:
        note: the note as it is, with the id and time it is to have; its text is empty where it is new.
        devices: id and name of those that it may be on.
        zone: of the times that are shown; None: the computer's.
    """

    taken = Signal(object)  # Note
    removed = Signal(int)  # id

    def __init__(
        self,
        theme: Theme,
        note: Note,
        devices: Sequence[tuple[str, str]] = (),
        parent: QWidget | None = None,
        *,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent, "note")
        self._note = note
        is_new = not note.text
        if is_new:
            self.name_it(self.tr("Add a note"), self.tr("Leave without adding"), self.tr("Add the note"))
        else:
            self.name_it(self.tr("Note"), self.tr("Leave as it was"), self.tr("Save the note"))
        self.text = ParamField(
            ParamSpec(
                name="note",
                title=self.tr("Note"),
                is_multiline=True,
                help=self.tr("What you saw or did. Ctrl+Enter keeps it."),
            ),
            theme,
        )
        editor = self.text.editor
        assert isinstance(editor, QPlainTextEdit)
        editor.setFont(self.font())
        self.text.set_value(note.text)
        self.text.edited.connect(self._check)
        self.time = TimeField(self.tr("Time"), note.t_us, zone, theme)
        self.time.edited.connect(self._check)
        known = dict(devices)
        if note.device and note.device not in known:
            known[note.device] = note.device  # removed since
        self.device = ParamField(
            ParamSpec(
                name="device",
                title=self.tr("Device"),
                type=ParamType.CHOICE,
                required=False,
                choices=tuple(known.items()),
            ),
            theme,
        )
        self.device.set_value(note.device or None)
        self.device.edited.connect(self._check)
        for field in (self.text, self.time, self.device):
            self.form.addWidget(field)
        self.device.setVisible(bool(known))
        self.form.addStretch(1)
        self.remove = QPushButton(self.tr("Remove the note"))
        self.remove.setObjectName("note.remove")
        self.remove.setAutoDefault(False)
        self.remove.setVisible(not is_new)
        self.remove.clicked.connect(self._remove)
        self.foot.insertWidget(0, self.remove)
        self.go.setShortcut("Ctrl+Return")
        self.go.clicked.connect(self._take)
        self._colour()
        self._check()
        self.fit(WIDTH)
        editor.moveCursor(editor.textCursor().MoveOperation.End)
        self.text.editor.setFocus()

    def note(self) -> Note:
        """What the fields say.

        Raises:
            ParameterError: the text is missing or too long; the sentence already stands under it.
        """
        text = str(self.text.check()).strip()
        fault = self._fault(text)
        if fault:
            self.text.show_error(fault)
            raise ParameterError(fault, "note")
        return Note(id=self._note.id, t_us=self.time.t_us(), text=text, device=str(self.device.raw() or ""))

    def _fault(self, text: str) -> str:
        if not text:
            return self.tr("Note must not be empty.")
        if len(text) > MAX_TEXT:
            text = self.tr("Note must be at most {most} characters, not {count}.")
            return text.format(most=MAX_TEXT, count=len(str(self.text.raw())))
        return ""

    def _check(self) -> None:
        text = str(self.text.raw() or "").strip()
        fault = self._fault(text)
        self.text.show_error(fault if text else "")
        self.missing.setText("" if text else self.tr("Still needed: a text."))
        self.go.setEnabled(not fault)

    def _take(self) -> None:
        try:
            note = self.note()
        except ParameterError:
            return  # it stands under its field
        self.taken.emit(note)
        self.accept()

    def _remove(self) -> None:
        self.removed.emit(self._note.id)
        self.accept()
