"""What this program is: its version, the parts it is made of with their licences, and the folders in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from PySide6.QtCore import QT_TRANSLATE_NOOP, QSize, Qt, qVersion
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.config import Profile
from app.versions import Part, licence_text, own_version, parts
from ui.model_words import model_text
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.sentence_panel import tint, words_label

#: What may stand in the place of a licence's name.
LICENCE_WORDS: Final = (QT_TRANSLATE_NOOP("Model", "public domain"), QT_TRANSLATE_NOOP("Model", "see its text"))

WIDTH: Final = 100  # letters
HEIGHT: Final = 38  # lines


class AboutDialog(QDialog):
    """A list of parts; the licence of the chosen one stands below it.

    Args:
        find: gives the parts; reading their metadata takes some ten milliseconds.
    """

    def __init__(
        self,
        theme: Theme,
        profile: Profile | None = None,
        parent: QWidget | None = None,
        *,
        find: Callable[[], Sequence[Part]] = parts,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("about")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowModality(Qt.WindowModality.WindowModal)
        self.setWindowTitle(self.tr("About Meterwright"))
        self._theme = theme
        self._profile = profile
        self.title = QLabel(self.tr("Meterwright {version}").format(version=own_version()))
        font = self.title.font()
        font.setPointSizeF(font.pointSizeF() * 1.6)
        self.title.setFont(font)
        self.lead = words_label()
        self.lead.setText(
            self.tr(
                "A bench for smart meters: connect, command, measure, replay. Free software under the Apache License "
                "2.0; Qt is used under the LGPL and can be replaced in the folder of the program."
            )
        )
        self.folders = words_label()
        self.folders.setObjectName("about.folders")
        self.folders.setText(self._folder_text())
        self.folders.setVisible(profile is not None)
        self.list = QTreeWidget()
        self.list.setObjectName("about.parts")
        self.list.setAccessibleName(self.tr("Parts and their licences"))
        self.list.setHeaderLabels([self.tr("Part"), self.tr("Version"), self.tr("Licence")])
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setAlternatingRowColors(True)
        for part in self._parts(find):
            licence = model_text(part.licence) if part.licence in LICENCE_WORDS else part.licence
            item = QTreeWidgetItem([part.name, part.version, licence])
            item.setData(0, Qt.ItemDataRole.UserRole, part.distribution)
            self.list.addTopLevelItem(item)
        for column in (0, 1):
            self.list.header().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.list.currentItemChanged.connect(lambda now, _before: self._show_licence(now))
        self.licence = QPlainTextEdit()
        self.licence.setObjectName("about.licence")
        self.licence.setReadOnly(True)
        self.licence.setTabChangesFocus(True)
        self.licence.setFont(fixed_font())
        self.licence.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(3))
        for widget in (self.title, self.lead, self.folders):
            outer.addWidget(widget)
        outer.addWidget(self.list, 2)
        outer.addWidget(self.licence, 1)
        outer.addLayout(self._make_buttons())
        theme.changed.connect(self._colour)
        self._colour()
        self.list.setCurrentIndex(self.list.model().index(0, 0))
        metrics = self.fontMetrics()
        size = QSize(metrics.averageCharWidth() * WIDTH, metrics.height() * HEIGHT)
        self.resize(size.boundedTo(self.screen().availableSize() * 0.9))

    def _parts(self, find: Callable[[], Sequence[Part]]) -> list[Part]:
        """With Qt itself, which only the window knows, behind Python."""
        found = list(find())
        found.insert(min(2, len(found)), Part("Qt", qVersion(), "LGPL-3.0-only"))
        return found

    def _folder_text(self) -> str:
        if self._profile is None:
            return ""
        return self.tr("Settings: {config}\nWorkspaces: {data}\nProgram's log and crash reports: {logs}").format(
            config=self._profile.config, data=self._profile.data, logs=self._profile.logs
        )

    def _make_buttons(self) -> QHBoxLayout:
        self.copy = QPushButton(self.tr("&Copy the versions"))
        self.copy.setObjectName("about.copy")
        self.copy.setAutoDefault(False)
        self.copy.clicked.connect(self._copy)
        self.leave = QPushButton(self.tr("Close"))
        self.leave.setObjectName("about.leave")
        self.leave.setDefault(True)
        self.leave.clicked.connect(self.accept)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.copy)
        row.addStretch(1)
        row.addWidget(self.leave)
        return row

    def _show_licence(self, item: QTreeWidgetItem | None) -> None:
        if item is None:
            return
        text = licence_text(str(item.data(0, Qt.ItemDataRole.UserRole) or ""))
        name = item.text(0)
        self.licence.setAccessibleName(self.tr("Licence of {name}").format(name=name))
        self.licence.setPlainText(
            text
            or self.tr("{name} is under {licence}. Its text is not among the installed files.").format(
                name=name, licence=item.text(2)
            )
        )

    def _copy(self) -> None:
        rows = (self.list.topLevelItem(row) for row in range(self.list.topLevelItemCount()))
        lines = [f"{row.text(0)} {row.text(1)}" for row in rows if row is not None]
        QGuiApplication.clipboard().setText("\n".join(lines))
        self.copy.setText(self.tr("Copied"))

    def _colour(self) -> None:
        for label in (self.lead, self.folders):
            tint(label, self._theme, Role.DIMMED)
