"""The first page: what is in front of you? Cards with a picture and a name; typing narrows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from PySide6.QtCore import QCoreApplication, QEvent, QModelIndex, QObject, QPersistentModelIndex, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QKeyEvent, QPainter, QPen, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QLabel,
    QLineEdit,
    QListView,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
)

from app.finding.kinds import KINDS, Kind
from app.ports import AdapterType
from ui.theme import Role, Theme, space
from ui.widgets.clipped_label import clipped
from ui.widgets.sentence_panel import sentence_label
from ui.wizard.page import WizardPage
from ui.wizard.pictures import paint_picture

translate: Final = QCoreApplication.translate

NAME_ROLE: Final = int(Qt.ItemDataRole.UserRole)
LETTERS: Final = 52  # a card is at least so wide
TITLE_LINES: Final = 2
TEXT_LINES: Final = 3
PICTURE: Final = 56
_WRAP: Final = int(Qt.TextFlag.TextWordWrap)


class _Card(QStyledItemDelegate):
    """Paints one card: the picture, the name, and a sentence below it."""

    def __init__(self, theme: Theme, cards: QListView) -> None:
        super().__init__(cards)
        self._theme = theme
        self._cards = cards

    def sizeHint(self, _option: QStyleOptionViewItem, _index: QModelIndex | QPersistentModelIndex) -> QSize:
        return self._cards.gridSize()

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        kind = KINDS[str(index.data(NAME_ROLE))]
        colour = self._theme.colour
        is_chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        is_usable = bool(index.flags() & Qt.ItemFlag.ItemIsEnabled)
        card = QRectF(option.rect).adjusted(2, 2, -space(1), -space(1))
        ink = colour(Role.SELECTION_TEXT if is_chosen else Role.TEXT if is_usable else Role.DIMMED)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(colour(Role.FOCUS if is_chosen else Role.LINE), 2 if is_chosen else 1))
        painter.setBrush(colour(Role.SELECTION if is_chosen else Role.PANEL))
        painter.drawRoundedRect(card, 6, 6)
        inner = card.adjusted(space(3), space(2), -space(3), -space(2))
        picture = QRectF(inner.left(), inner.top(), PICTURE, inner.height())
        words = QRectF(inner.left() + PICTURE + space(3), inner.top(), 0, inner.height())
        words.setRight(inner.right())
        if option.direction is Qt.LayoutDirection.RightToLeft:
            picture.moveRight(inner.right())
            words.moveLeft(inner.left())
        painter.setOpacity(1.0 if is_usable else 0.45)
        paint_picture(painter, picture, kind.picture, self._theme)
        painter.setOpacity(1.0)
        bold = QFont(option.font)
        bold.setBold(True)
        used = self._write(painter, words, translate("Model", kind.title), bold, ink, TITLE_LINES)
        words.setTop(words.top() + used + space(1))
        text = translate("Model", kind.text) if is_usable else str(index.data(Qt.ItemDataRole.ToolTipRole))
        dimmed = ink if is_chosen else colour(Role.DIMMED)
        self._write(painter, words, text, option.font, dimmed, TEXT_LINES)
        painter.restore()

    def _write(self, painter: QPainter, rect: QRectF, text: str, font: QFont, ink: QColor, lines: int) -> float:
        """The height that it took."""
        shown = clipped(text, QFontMetrics(font), int(rect.width()), lines)
        painter.setFont(font)
        painter.setPen(ink)
        used = painter.boundingRect(rect, _WRAP, shown)
        painter.drawText(rect, _WRAP, shown)
        return used.height()


class _Cards(QListWidget):
    """As many columns as there is room for."""

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setUniformItemSizes(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)  # its coming would move the cards
        self.viewport().setAutoFillBackground(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self.setGridSize(self._grid())
        super().resizeEvent(event)

    def _grid(self) -> QSize:
        metrics = self.fontMetrics()
        width = self.viewport().width() - 2
        columns = max(1, width // (metrics.averageCharWidth() * LETTERS))
        lines = (TITLE_LINES + TEXT_LINES - 1) * metrics.lineSpacing() + space(8)
        return QSize(width // columns, max(lines, PICTURE + space(6)))


class KindsPage(WizardPage):
    """``kind()`` is what was chosen."""

    def __init__(self, theme: Theme, types: Mapping[str, AdapterType]) -> None:
        super().__init__(theme)
        self.search = QLineEdit()
        self.search.setObjectName("wizard.search")
        self.search.setAccessibleName(self.tr("Search for a meter, gateway or service"))
        self.search.setPlaceholderText(self.tr("Type a name: meter, LEM, gateway, ChirpStack..."))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._filter)
        self.search.installEventFilter(self)
        self.cards = _Cards()
        self.cards.setObjectName("wizard.cards")
        self.cards.setAccessibleName(self.tr("What is in front of you"))
        self.cards.setItemDelegate(_Card(theme, self.cards))
        for kind in KINDS.values():
            self._add(kind, types)
        self.cards.currentItemChanged.connect(lambda _now, _before: self.changed.emit())
        self.cards.itemDoubleClicked.connect(lambda _item: self.forward.emit())
        self.nothing: QLabel = sentence_label()
        self.nothing.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(2))
        column.addWidget(self.search)
        column.addWidget(self.cards, 1)
        column.addWidget(self.nothing, 1)
        self._choose_first()
        theme.changed.connect(self.cards.viewport().update)

    def _add(self, kind: Kind, types: Mapping[str, AdapterType]) -> None:
        title, text = translate("Model", kind.title), translate("Model", kind.text)
        item = QListWidgetItem(title)
        item.setData(NAME_ROLE, kind.name)
        item.setToolTip(text)
        item.setData(Qt.ItemDataRole.AccessibleDescriptionRole, text)
        if not any(key in types for key in kind.adapters):
            item.setFlags(Qt.ItemFlag.NoItemFlags)
            item.setToolTip(self.tr("What it needs is not installed on this computer."))
        self.cards.addItem(item)

    # ---------------------------------------------------------------- choosing

    def heading(self) -> str:
        return self.tr("What is in front of you?")

    def verb(self) -> str:
        return self.tr("&Go on")

    def missing(self) -> str:
        return "" if self.kind() is not None else self.tr("Choose what is in front of you.")

    def enter(self) -> None:
        self.search.setFocus(Qt.FocusReason.OtherFocusReason)

    def kind(self) -> Kind | None:
        """What is chosen and can be used."""
        item = self.cards.currentItem()
        if item is None or item.isHidden() or not item.flags() & Qt.ItemFlag.ItemIsEnabled:
            return None
        return KINDS[str(item.data(NAME_ROLE))]

    def choose(self, name: str) -> None:
        """Choose a kind by its name."""
        for item in self._items():
            if item.data(NAME_ROLE) == name:
                self.cards.setCurrentItem(item)

    def shown(self) -> list[str]:
        """Names of the kinds that are not filtered away."""
        return [str(item.data(NAME_ROLE)) for item in self._items() if not item.isHidden()]

    def _items(self) -> list[QListWidgetItem]:
        return [self.cards.item(row) for row in range(self.cards.count())]

    def _filter(self, text: str) -> None:
        words = text.casefold().split()
        for item in self._items():
            kind = KINDS[str(item.data(NAME_ROLE))]
            said = f"{item.text()} {item.toolTip()} {kind.title} {kind.text} {' '.join(kind.adapters)}".casefold()
            item.setHidden(not all(word in said for word in words))
        is_any = bool(self.shown())
        self.cards.setVisible(is_any)
        self.nothing.setVisible(not is_any)
        self.nothing.setText(
            self.tr("Nothing is called {text}. Clear the search, or enter the connection by hand.").format(text=text)
        )
        if self.kind() is None:
            self._choose_first()
        self.changed.emit()

    def _choose_first(self) -> None:
        usable = Qt.ItemFlag.ItemIsEnabled
        first = next((one for one in self._items() if not one.isHidden() and one.flags() & usable), None)
        if first is not None:
            self.cards.setCurrentItem(first)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Arrows in the search line lead to the cards."""
        is_key = watched is self.search and event.type() == QEvent.Type.KeyPress
        if is_key and isinstance(event, QKeyEvent) and event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Up):
            self.cards.setFocus(Qt.FocusReason.TabFocusReason)
            return True
        return super().eventFilter(watched, event)
