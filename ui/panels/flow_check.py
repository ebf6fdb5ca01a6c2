"""A person's check: the question, yes or no or a value, a note, and photos with their preview."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PySide6.QtCore import QBuffer, QByteArray, QCoreApplication, QIODevice, QMimeDatabase, QSize, Qt, Signal
from PySide6.QtGui import (
    QDragEnterEvent,
    QDropEvent,
    QIcon,
    QImage,
    QImageReader,
    QKeyEvent,
    QPixmap,
)
from PySide6.QtWidgets import (
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QListView,
    QListWidget,
    QListWidgetItem,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.errors import ParameterError
from app.model.flow_spec import Photo, Question
from app.workbench import MAX_ATTACHMENT
from ui.panels.command import ParamField
from ui.theme import Role, Theme, space
from ui.widgets.sentence_panel import tint, words_label

translate: Final = QCoreApplication.translate

PREVIEW: Final = QSize(112, 84)
NOTE_LINES: Final = 3
PICTURES: Final = "*.jpg *.jpeg *.png *.webp *.bmp *.gif"
LARGEST: Final = QSize(1000, 700)  # of a picture that is looked at by itself
_DATA_ROLE: Final = int(Qt.ItemDataRole.UserRole)


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo before or after it is kept. ``data`` are the bytes of its file."""

    name: str
    media_type: str
    data: bytes


def decoded(data: bytes, most: QSize) -> QImage:
    """A picture at most so large, the right way up; a null image where it is none."""
    kept = QByteArray(data)
    buffer = QBuffer(kept)
    buffer.open(QIODevice.OpenModeFlag.ReadOnly)
    reader = QImageReader(buffer)
    reader.setAutoTransform(True)
    size = reader.size()
    if size.isValid() and (size.width() > most.width() or size.height() > most.height()):
        longest = max(most.width(), most.height())  # before it is turned
        reader.setScaledSize(size.scaled(longest, longest, Qt.AspectRatioMode.KeepAspectRatio))
    image = reader.read()
    if image.width() > most.width() or image.height() > most.height():
        image = image.scaled(most, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation)
    return image


def read_picture(path: Path) -> Picture:
    """A picture's file.

    Raises:
        ParameterError: it cannot be read, is too large, or is no picture that can be shown.
    """
    try:
        size = path.stat().st_size
        if size > MAX_ATTACHMENT:
            text = translate("FlowCheck", "{name} is {size} MiB; up to {most} MiB can be kept.")
            shown = f"{size / (1 << 20):.1f}"
            raise ParameterError(text.format(name=path.name, size=shown, most=MAX_ATTACHMENT >> 20), "photo")
        data = path.read_bytes()
    except OSError as exc:
        text = translate("FlowCheck", "{name} cannot be read: {why}.")
        raise ParameterError(text.format(name=path.name, why=exc.strerror), "photo") from None
    if decoded(data, PREVIEW).isNull():
        text = translate("FlowCheck", "{name} is no picture that can be shown. Choose a JPEG or PNG.")
        raise ParameterError(text.format(name=path.name), "photo")
    return Picture(path.name, QMimeDatabase().mimeTypeForData(QByteArray(data)).name(), data)


class PictureList(QListWidget):
    """Photos as previews with their names; opening one shows it large."""

    removed = Signal()

    def __init__(self, parent: QWidget | None = None, *, can_remove: bool = False) -> None:
        super().__init__(parent)
        self._can_remove = can_remove
        self.setAccessibleName(self.tr("Photos"))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setIconSize(PREVIEW)
        self.setSpacing(space(1))
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setAcceptDrops(False)
        self.setFixedHeight(PREVIEW.height() + self.fontMetrics().height() + space(8))
        self.itemActivated.connect(self._open)
        self.hide()

    def add(self, picture: Picture) -> None:
        """Show one more; what cannot be shown stands there by its name."""
        image = decoded(picture.data, PREVIEW * self.devicePixelRatioF())
        item = QListWidgetItem(picture.name)
        if not image.isNull():
            pixmap = QPixmap.fromImage(image)
            pixmap.setDevicePixelRatio(self.devicePixelRatioF())
            item.setIcon(QIcon(pixmap))
        item.setSizeHint(QSize(PREVIEW.width() + space(4), PREVIEW.height() + self.fontMetrics().height() + space(3)))
        item.setData(_DATA_ROLE, picture)
        item.setToolTip(self.tr("{name}, {size} kB").format(name=picture.name, size=max(1, len(picture.data) // 1000)))
        self.addItem(item)
        self.show()

    def set_pictures(self, pictures: Iterable[Picture]) -> None:
        self.clear()
        self.hide()
        for picture in pictures:
            self.add(picture)

    def pictures(self) -> tuple[Picture, ...]:
        return tuple(self.item(at).data(_DATA_ROLE) for at in range(self.count()))

    def remove_current(self) -> None:
        at = self.currentRow()
        if self._can_remove and at >= 0:
            self.takeItem(at)
            self.setVisible(self.count() > 0)
            self.removed.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if self._can_remove and event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.remove_current()
            return
        super().keyPressEvent(event)

    def _open(self, item: QListWidgetItem) -> None:
        picture = item.data(_DATA_ROLE)
        dialog = QDialog(self)
        dialog.setObjectName("picture")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(picture.name)
        label = QLabel()
        label.setAccessibleName(picture.name)
        image = decoded(picture.data, LARGEST)
        if image.isNull():
            label.setText(self.tr("{name} cannot be shown here.").format(name=picture.name))
        else:
            label.setPixmap(QPixmap.fromImage(image))
        close = QPushButton(self.tr("Close"))
        close.clicked.connect(dialog.close)
        layout = QVBoxLayout(dialog)
        layout.addWidget(label)
        layout.addWidget(close, alignment=Qt.AlignmentFlag.AlignRight)
        dialog.open()


class PersonsCheck(QWidget):
    """Asks one question. What a person has entered stays until another question is asked."""

    answered = Signal(object, str, object)  # the answer, the note, the photos

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._key: object = None
        self._question: Question | None = None
        self.field: ParamField | None = None
        self.setAcceptDrops(True)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(space(2))
        self.text = words_label()
        font = self.text.font()
        font.setBold(True)
        self.text.setFont(font)
        self._layout.addWidget(self.text)
        self.note_title = QLabel()
        self.note = QPlainTextEdit()
        self.note.setObjectName("check.note")
        self.note.setTabChangesFocus(True)
        self.note.setAcceptDrops(False)
        self.note.setFixedHeight(self.note.fontMetrics().lineSpacing() * NOTE_LINES + space(4))
        self.note_title.setBuddy(self.note)
        self._layout.addWidget(self.note_title)
        self._layout.addWidget(self.note)
        self.photo_hint = QLabel()
        self.photo_hint.setWordWrap(True)
        self._layout.addWidget(self.photo_hint)
        self.photos = PictureList(can_remove=True)
        self._layout.addWidget(self.photos)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.add = self._button(row, self.tr("Add a photo…"), self._choose)
        self.remove = self._button(row, self.tr("Remove the photo"), self.photos.remove_current)
        row.addStretch(1)
        self._layout.addLayout(row)
        self.error = words_label()
        self.error.setObjectName("check.error")
        self._layout.addWidget(self.error)
        last = QHBoxLayout()
        last.setSpacing(space(2))
        self.yes = self._button(last, self.tr("Answer yes"), lambda: self._answer(True))
        self.no = self._button(last, self.tr("Answer no"), lambda: self._answer(False))
        self.keep = self._button(last, self.tr("Keep the answer"), self._answer_value)
        last.addStretch(1)
        self._layout.addLayout(last)
        self.photos.removed.connect(self._show_photos)
        self.photos.currentRowChanged.connect(lambda _row: self._show_photos())
        theme.changed.connect(self._colour)

    def _button(self, row: QHBoxLayout, text: str, slot: Any) -> QPushButton:
        button = QPushButton(text)
        button.setAutoDefault(False)
        button.clicked.connect(lambda _checked=False: slot())
        row.addWidget(button)
        return button

    def ask(self, key: object, question: Question, text: str) -> None:
        """Ask, unless this very question (by its ``key``) is being asked already."""
        self.text.setText(text)
        if key == self._key:
            return
        self._key, self._question = key, question
        self.note.clear()
        self.photos.set_pictures(())
        if self.field is not None:
            self._layout.removeWidget(self.field)
            self.field.deleteLater()
            self.field = None
        if question.answer is not None:
            self.field = ParamField(question.answer, self._theme)
            self._layout.insertWidget(1, self.field)
        is_value = question.answer is not None
        self.keep.setVisible(is_value)
        self.yes.setVisible(not is_value)
        self.no.setVisible(not is_value)
        self.note_title.setText(self.tr("Note (needed)") if question.note_required else self.tr("Note (optional)"))
        self.note.setAccessibleName(self.note_title.text())
        self._say("")
        self._show_photos()

    def forget(self) -> None:
        """Nothing is asked any more."""
        self._key = None

    def _show_photos(self) -> None:
        wanted = self._question.photo if self._question is not None else Photo.NO
        takes = wanted is not Photo.NO
        count = self.photos.count()
        if count:
            hint = self.tr("{n} photos. Open one to see it large.").format(n=count) if count > 1 else ""
        elif wanted is Photo.REQUIRED:
            hint = self.tr("A photo is needed: drop it here, or choose its file.")
        else:
            hint = self.tr("A photo may help: drop it here, or choose its file.")
        self.photo_hint.setText(hint)
        self.photo_hint.setVisible(takes and bool(hint))
        self.add.setVisible(takes)
        self.remove.setVisible(takes and count > 0)
        self.remove.setEnabled(self.photos.currentRow() >= 0)
        self._colour()

    def _colour(self) -> None:
        tint(self.photo_hint, self._theme, Role.DIMMED)
        tint(self.error, self._theme, Role.BAD)

    def _say(self, text: str) -> None:
        self.error.setText(text)
        self.error.setVisible(bool(text))

    def show_error(self, text: str) -> None:
        """What the core found wrong with the answer."""
        self._say(text)

    # ---------------------------------------------------------------- photos

    def _choose(self) -> None:
        dialog = QFileDialog(self, self.tr("Add a photo"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.setNameFilters([self.tr("Pictures ({pattern})").format(pattern=PICTURES), self.tr("All files (*)")])
        dialog.filesSelected.connect(self.take_files)
        dialog.open()

    def take_files(self, paths: Sequence[str]) -> None:
        """Add the pictures in these files; what cannot be taken is said."""
        wrong: list[str] = []
        for path in paths:
            try:
                self.photos.add(read_picture(Path(path)))
            except ParameterError as fault:
                wrong.append(str(fault))
        self._say(" ".join(wrong))
        self._show_photos()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        takes = self._question is not None and self._question.photo is not Photo.NO
        if takes and any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self.take_files([url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()])
        event.acceptProposedAction()

    # ---------------------------------------------------------------- answers

    def _answer_value(self) -> None:
        if self.field is None:
            return
        try:
            value = self.field.check()
        except ParameterError:
            return  # the sentence stands under the editor
        self._answer(value)

    def _answer(self, value: Any) -> None:
        question = self._question
        if question is None:
            return
        if question.note_required and not self.note.toPlainText().strip():
            self._say(self.tr("A note is needed here: write what you saw."))
            self.note.setFocus(Qt.FocusReason.OtherFocusReason)
            return
        if question.photo is Photo.REQUIRED and not self.photos.count():
            self._say(self.tr("A photo is needed here: drop it on this page, or choose its file."))
            self.add.setFocus(Qt.FocusReason.OtherFocusReason)
            return
        self._say("")
        self.answered.emit(value, self.note.toPlainText().strip(), self.photos.pictures())
