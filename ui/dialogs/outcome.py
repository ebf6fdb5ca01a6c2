"""What a person saw on a meter, where no read shows what came of a command."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, Signal
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QPushButton, QWidget

from app.workbench import MAX_SAID
from ui.dialogs.confirm import Question
from ui.theme import Theme, space

LINES = 3


class OutcomeQuestion(Question):
    """``said`` carries whether it was done, and the note. Both answers need the note."""

    said = Signal(bool, str)

    def __init__(self, parent: QWidget, theme: Theme, device: str, text: str) -> None:
        super().__init__(
            parent,
            title=QCoreApplication.translate("OutcomeQuestion", "Say what {device} shows").format(device=device),
            text=text,
            verb=QCoreApplication.translate("OutcomeQuestion", "It was done"),
            refuse=QCoreApplication.translate("OutcomeQuestion", "Leave it open"),
            theme=theme,
        )
        self.setObjectName("outcome")
        self.add_text(self.tr("No read shows it. Look at the meter, then say what you see; it stays in the log."))
        self.label = QLabel(self.tr("What the meter shows"))
        self.note = QPlainTextEdit()
        self.note.setObjectName("outcome.note")
        self.note.setTabChangesFocus(True)
        self.note.setAccessibleName(self.label.text())
        self.note.setFixedHeight(self.note.fontMetrics().height() * LINES + space(4))
        self.note.textChanged.connect(self._check)
        self.label.setBuddy(self.note)
        self.body.addWidget(self.label)
        self.body.addWidget(self.note)
        self.not_done = QPushButton(self.tr("It was not done"))
        self.not_done.setObjectName("outcome.not_done")
        self.not_done.setAutoDefault(False)
        self.not_done.clicked.connect(self._say_not_done)
        self.buttons.insertWidget(self.buttons.count() - 1, self.not_done)
        self.accepted.connect(lambda: self.said.emit(True, self._text()))
        self._check()
        self.note.setFocus()

    def _text(self) -> str:
        return self.note.toPlainText().strip()

    def _check(self) -> None:
        is_said = 0 < len(self._text()) <= MAX_SAID
        for button in (self.go, self.not_done):
            button.setEnabled(is_said)

    def _say_not_done(self) -> None:
        note = self._text()
        self.reject()
        self.said.emit(False, note)
