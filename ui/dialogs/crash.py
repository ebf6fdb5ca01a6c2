"""Something went wrong in the program itself: what that means, and the report that helps to mend it."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QSize, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.crash_file import Crash
from app.model.reading import Severity
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.sentence_panel import tint, words_label

WIDTH: Final = 84  # letters
REPORT_LINES: Final = 18


class CrashDialog(QDialog):
    """Not modal: what is under way can be watched and ended beside it.

    Args:
        is_end: the program has ended by this fault; otherwise it goes on.
    """

    def __init__(self, theme: Theme, crash: Crash, parent: QWidget | None, *, is_end: bool = False) -> None:
        super().__init__(parent)
        self.setObjectName("crash")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Something went wrong in Meterwright"))
        self._theme = theme
        self._crash = crash
        self._more = 0
        icon = QLabel()
        side = self.fontMetrics().height() * 2
        icon.setPixmap(theme.severity_icon(Severity.BAD, side).pixmap(side, side))
        icon.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.text = words_label()
        self.text.setObjectName("crash.text")
        font = self.text.font()
        font.setBold(True)
        self.text.setFont(font)
        self.advice = words_label()
        self.advice.setObjectName("crash.advice")
        self.summary = words_label()
        self.summary.setObjectName("crash.summary")
        self.summary.setText(crash.summary)
        self.place = words_label()
        self.place.setObjectName("crash.place")
        if is_end:
            self.text.setText(self.tr("A fault in the program has ended Meterwright."))
            self.advice.setText(
                self.tr(
                    "The workspace is whole: what was sent stands in its log, and what was under way is looked after "
                    "at the next start. Send the report to whoever looks after Meterwright."
                )
            )
        else:
            self.text.setText(self.tr("A fault in the program stopped what it was just doing."))
            self.advice.setText(
                self.tr(
                    "The last thing you did may not have happened; the log says what was sent. Everything else goes "
                    "on. Send the report to whoever looks after Meterwright."
                )
            )
        self.report = QPlainTextEdit(crash.text)
        self.report.setObjectName("crash.report")
        self.report.setAccessibleName(self.tr("Report"))
        self.report.setReadOnly(True)
        self.report.setTabChangesFocus(True)
        self.report.setFont(fixed_font())
        self.report.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.report.setMinimumHeight(self.report.fontMetrics().height() * REPORT_LINES)
        self.report.hide()
        words = QVBoxLayout()
        words.setSpacing(space(3))
        for label in (self.text, self.advice, self.summary, self.place):
            words.addWidget(label)
        upper = QHBoxLayout()
        upper.setSpacing(space(4))
        upper.addWidget(icon)
        upper.addLayout(words, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(3))
        outer.addLayout(upper)
        outer.addWidget(self.report, 1)
        outer.addLayout(self._make_buttons(is_end))
        self._width = self.fontMetrics().averageCharWidth() * WIDTH
        self.setMinimumWidth(min(self._width, self.screen().availableSize().width()))
        theme.changed.connect(self._colour)
        self._colour()
        self._show_place()

    def _make_buttons(self, is_end: bool) -> QHBoxLayout:
        self.read = QPushButton(self.tr("&Show the report"))
        self.read.setObjectName("crash.read")
        self.read.clicked.connect(self._turn)
        self.copy = QPushButton(self.tr("&Copy the report"))
        self.copy.setObjectName("crash.copy")
        self.copy.clicked.connect(self._copy)
        self.open_folder = QPushButton(self.tr("&Open its folder"))
        self.open_folder.setObjectName("crash.open")
        self.open_folder.setEnabled(self._crash.file is not None)
        self.open_folder.clicked.connect(self._open)
        self.leave = QPushButton(self.tr("Close this message") if is_end else self.tr("Go on working"))
        self.leave.setObjectName("crash.leave")
        self.leave.setDefault(True)
        self.leave.clicked.connect(self.accept)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        for button in (self.read, self.copy, self.open_folder):
            button.setAutoDefault(False)
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(self.leave)
        return row

    def add(self, crash: Crash) -> None:
        """One more fault while this one is shown."""
        self._more += 1
        self._crash = crash
        self.summary.setText(crash.summary)
        self.report.setPlainText(crash.text)
        self.open_folder.setEnabled(crash.file is not None)
        self.copy.setText(self.tr("&Copy the report"))
        self._show_place()

    def _show_place(self) -> None:
        file = self._crash.file
        text = self.tr("The report is in {file}.").format(file=file) if file is not None else self._crash.why_not
        if self._more:
            text = self.tr("{text} Faults since this message came: {n}; the newest is shown.").format(
                text=text, n=self._more
            )
        self.place.setText(self.tr("{text} Passwords, keys and tokens are left out of it.").format(text=text))

    def _turn(self) -> None:
        """Show the report, or hide it again."""
        is_shown = self.report.isHidden()
        self.report.setVisible(is_shown)
        self.read.setText(self.tr("&Hide the report") if is_shown else self.tr("&Show the report"))
        self.layout().activate()  # type: ignore[union-attr]
        width = self._width * 3 // 2 if is_shown else self._width
        room = self.screen().availableSize() * 0.9
        self.resize(QSize(width, self.sizeHint().height()).boundedTo(room))

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self._crash.text)
        self.copy.setText(self.tr("Copied"))

    def _open(self) -> None:
        if self._crash.file is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._crash.file.parent)))

    def _colour(self) -> None:
        tint(self.place, self._theme, Role.DIMMED)
        tint(self.summary, self._theme, Role.BAD)
