"""What the dialogs of the lab have in common: their frame, fields for curves and times, and work beside the window."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, ClassVar, Final

import shiboken6
from PySide6.QtCore import (
    QCoreApplication,
    QDate,
    QDateTime,
    QObject,
    QSignalBlocker,
    QSize,
    QStringListModel,
    Qt,
    QTime,
    QTimeZone,
    Signal,
)
from PySide6.QtWidgets import (
    QComboBox,
    QCompleter,
    QDateTimeEdit,
    QDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.lab.series import SeriesKey
from ui.model_words import model_text
from ui.models.log_table import time_text, zone_text
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.chart.curve import from_us, in_years, to_us
from ui.widgets.sentence_panel import tint

translate: Final = QCoreApplication.translate

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - wall-clock time, its zone is beside it
_MOST_OF_SCREEN: Final = 0.9
_SPARE_LINES: Final = 3  # of room for sentences under fields


@dataclass(frozen=True, slots=True)
class CurveChoice:
    """A curve that a person may choose, and what people call it."""

    key: SeriesKey
    title: str = ""
    device_name: str = ""

    @property
    def text(self) -> str:
        name, unit = model_text(self.title) or self.key.name, self.key.unit
        what = f"{name} ({unit})" if unit else name
        return translate("Lab", "{what} of {device}").format(what=what, device=self.device_name or self.key.device)


def moment_text(t_us: int, zone: tzinfo | None) -> str:
    """Date and time to the millisecond, with the zone."""
    at = from_us(in_years(t_us))
    return f"{time_text(at, zone)} {zone_text(at, zone)}"


class LabDialog(QDialog):
    """Fields that are scrolled where the screen is small, what is still needed, and two verbs."""

    def __init__(self, theme: Theme, parent: QWidget | None, name: str) -> None:
        super().__init__(parent)
        self._theme = theme
        self.setObjectName(name)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowModality(Qt.WindowModality.WindowModal)
        self.page = QWidget()
        self.form = QVBoxLayout(self.page)
        self.form.setContentsMargins(0, 0, space(3), 0)
        self.form.setSpacing(space(3))
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the fields in it are what is reached
        self.area.setWidget(self.page)
        self.missing = QLabel()
        self.missing.setObjectName(f"{name}.missing")
        self.missing.setWordWrap(True)
        self.missing.setTextFormat(Qt.TextFormat.PlainText)
        self.leave = QPushButton()
        self.leave.setObjectName(f"{name}.leave")
        self.leave.setAutoDefault(False)
        self.leave.clicked.connect(self.reject)
        self.go = QPushButton()
        self.go.setObjectName(f"{name}.go")
        self.go.setDefault(True)
        self.foot = QHBoxLayout()
        self.foot.setSpacing(space(2))
        self.foot.addStretch(1)
        self.foot.addWidget(self.leave)
        self.foot.addWidget(self.go)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(3))
        outer.addWidget(self.area, 1)
        outer.addWidget(self.missing)
        outer.addLayout(self.foot)
        theme.changed.connect(self._colour)

    def name_it(self, title: str, leave: str, go: str) -> None:
        """The title and the two verbs."""
        self.setWindowTitle(title)
        self.leave.setText(leave)
        self.go.setText(go)

    def fit(self, letters: int, spare_lines: int = _SPARE_LINES) -> None:
        """As wide as so many letters and as tall as the fields with some lines more, as far as the screen allows."""
        width = self.fontMetrics().averageCharWidth() * letters
        height = self.page.heightForWidth(width - space(12))
        height = max(height, self.page.sizeHint().height()) + self.go.sizeHint().height()
        height += space(14) + (1 + spare_lines) * self.fontMetrics().height()
        self.resize(QSize(width, height).boundedTo(self.screen().availableSize() * _MOST_OF_SCREEN))

    def dimmed_labels(self) -> Iterable[QLabel]:
        """Labels with words that stand back."""
        return (self.missing,)

    def _colour(self) -> None:
        for label in self.dimmed_labels():
            tint(label, self._theme, Role.DIMMED)


class CurvePicker(QComboBox):
    """One of many choices: typed parts of a name are looked for."""

    chosen = Signal()  # what ``key`` says may have changed

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._keys: list[Any] = []
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setAccessibleName(name)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(16)
        line = self.lineEdit()
        assert line is not None
        line.setPlaceholderText(self.tr("– choose –"))
        line.setAccessibleName(name)
        self._texts = QStringListModel(self)
        self.setModel(self._texts)
        finder = QCompleter(self._texts, self)
        finder.setFilterMode(Qt.MatchFlag.MatchContains)
        finder.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setCompleter(finder)
        self.setCurrentIndex(-1)
        self.editTextChanged.connect(self._on_text)

    def set_choices(self, choices: Sequence[tuple[Any, str]]) -> None:
        """Offer these keys under their texts; the chosen one stays where it is among them."""
        before = self.key()
        with QSignalBlocker(self):
            self._keys = [key for key, _text in choices]
            self._texts.setStringList([text for _key, text in choices])
            self.set_key(before)

    def key(self) -> Any:
        """The chosen key; None where what stands there is none of the choices."""
        at = self.currentIndex()
        if 0 <= at < len(self._keys) and self.itemText(at) == self.currentText():
            return self._keys[at]
        at = self.findText(self.currentText(), Qt.MatchFlag.MatchFixedString) if self.currentText() else -1
        return self._keys[at] if at >= 0 else None

    def set_key(self, key: Any) -> None:
        """Choose; a key that is not among the choices leaves the field empty."""
        at = self._keys.index(key) if key in self._keys else -1
        self.setCurrentIndex(at)
        if at < 0:
            self.clearEditText()

    def _on_text(self, _text: str) -> None:
        self.chosen.emit()


class TimeField(QWidget):
    """A moment in the window's zone. One that is not edited stays exact to the microsecond."""

    edited = Signal()

    def __init__(self, title: str, t_us: int, zone: tzinfo | None, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._zone = zone
        self._theme = theme
        self._t_us = t_us
        self.title = QLabel(title)
        self.editor = QDateTimeEdit()
        self.editor.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # ISO 8601, in every language
        self.editor.setTimeZone(QTimeZone.utc())  # as written: the zone is beside it
        self.editor.setDisplayFormat("yyyy-MM-dd HH:mm:ss.zzz")
        self.editor.setMinimumDate(QDate(1969, 12, 31))  # 1970 in UTC, wherever
        self.editor.setMaximumDate(QDate(9998, 12, 31))
        self.editor.setFont(fixed_font())
        self.editor.setAccessibleName(title)
        self.editor.setLocale(self.editor.locale().c())
        self.title.setBuddy(self.editor)
        self.zone = QLabel()
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.editor)
        row.addWidget(self.zone)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        column.addWidget(self.title)
        column.addLayout(row)
        self.editor.dateTimeChanged.connect(self._on_edit)
        theme.changed.connect(self._show_zone)
        self.set_us(t_us)

    def t_us(self) -> int:
        return self._t_us

    def set_us(self, t_us: int) -> None:
        self._t_us = t_us
        local = from_us(in_years(t_us)).astimezone(self._zone)
        with QSignalBlocker(self.editor):
            self.editor.setDateTime(
                QDateTime(
                    QDate(local.year, local.month, local.day),
                    QTime(local.hour, local.minute, local.second, local.microsecond // 1000),
                    QTimeZone.utc(),
                )
            )
        self._show_zone()

    def _on_edit(self, written: QDateTime) -> None:
        wall = _EPOCH + timedelta(milliseconds=written.toMSecsSinceEpoch())
        at = wall.astimezone(UTC) if self._zone is None else wall.replace(tzinfo=self._zone)
        self._t_us = to_us(at)
        self._show_zone()
        self.edited.emit()

    def _show_zone(self) -> None:
        self.zone.setText(zone_text(from_us(in_years(self._t_us)), self._zone))
        tint(self.zone, self._theme, Role.DIMMED)


class _Post(QObject):
    """Brings answers to the GUI thread. There is one, and it stays: nothing of Qt may end in another thread."""

    came = Signal(object, object, object)  # Errand, value, error

    def __init__(self) -> None:
        super().__init__()
        self.came.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def _deliver(self, errand: Errand, value: Any, error: Exception | None) -> None:
        errand.deliver(value, error)


@functools.cache
def _post() -> _Post:
    return _Post()


class Errand:
    """One piece of work in a thread of its own; to be sent from the GUI thread.

    The answer comes on the GUI thread, unless the errand was dropped or its owner is gone; a thread that nobody waits
    for any more is left behind. A failure that is no ``WorkbenchError`` is raised on the GUI thread. ``work`` must hold
    nothing of the window.
    """

    under_way: ClassVar[set[Errand]] = set()

    def __init__(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[WorkbenchError], None],
        owner: QObject,
    ) -> None:
        self._receivers: tuple[Any, Any, QObject] | None = (then, failed, owner)
        Errand.under_way.add(self)
        threading.Thread(target=self._run, args=(work, _post()), name="errand", daemon=True).start()

    def drop(self) -> None:
        """Nobody wants the answer any more."""
        self._receivers = None

    def _run(self, work: Callable[[], Any], post: _Post) -> None:
        value: Any = None
        error: Exception | None = None
        try:
            value = work()
        except Exception as exc:  # noqa: BLE001 - the top of a thread: raised again or told on the GUI thread
            error = exc
        with contextlib.suppress(RuntimeError):  # the program has ended
            post.came.emit(self, value, error)

    def deliver(self, value: Any, error: Exception | None) -> None:
        """Hand over the answer, on the GUI thread."""
        Errand.under_way.discard(self)
        receivers, self._receivers = self._receivers, None
        if receivers is None or not shiboken6.isValid(receivers[2]):
            return
        then, failed, _owner = receivers
        if error is None:
            then(value)
        elif isinstance(error, WorkbenchError):
            failed(error)
        else:
            raise error
