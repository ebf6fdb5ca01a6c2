"""The views in the centre of the window: those of use now as tabs, all others behind *More*.

Which ones are of use follows from the layout and the chosen device. A view keeps its place among the tabs, and the one
that is looked at always has its tab; where there is no room for all, the less wanted ones stand behind *More* too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import QMenu, QTabBar, QTabWidget, QToolButton, QWidget

from ui.actions import View


@dataclass(frozen=True, slots=True)
class _Place:
    """A view's page, and what goes there from a menu."""

    page: QWidget
    action: QAction


class ViewTabs(QTabWidget):
    """Tabs of which only the wanted ones are shown; ``show_view`` and ``setCurrentWidget`` bring any other one."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("tabs")
        self.setAccessibleName(self.tr("Views"))
        self._bar = _Bar()
        self.setTabBar(self._bar)
        self.setDocumentMode(True)
        self._places: dict[View, _Place] = {}
        self._wanted: tuple[View, ...] = ()  # the most wanted first
        self._guest: View | None = None  # asked for though not wanted; it stays until another one is
        self.more = QToolButton()
        self.more.setObjectName("tabs.more")
        self.more.setText(self.tr("More"))
        self.more.setToolTip(self.tr("The other views. View > Go to has all of them."))
        self.more.setAutoRaise(True)
        self.more.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._menu = QMenu(self.more)
        self._menu.setToolTipsVisible(True)
        self._menu.aboutToShow.connect(self._fill_menu)
        self.more.setMenu(self._menu)
        self.setCornerWidget(self.more, Qt.Corner.TopRightCorner)

    def add_view(self, view: View, page: QWidget, title: str, tip: str, action: QAction) -> None:
        """``tip`` says what the view is for; ``action`` goes to it."""
        self._places[view] = _Place(page, action)
        self.setTabToolTip(self.addTab(page, title), tip)

    def page(self, view: View) -> QWidget:
        return self._places[view].page

    def show_view(self, view: View) -> None:
        """Go to ``view``, whether it has a tab now or not."""
        self.setCurrentWidget(self.page(view))

    @property
    def view(self) -> View | None:
        """The one that is looked at; None: the welcome page."""
        return self._view_of(self.currentWidget())

    @property
    def shown(self) -> tuple[View, ...]:
        """The views that have a tab now, in their order."""
        return tuple(view for view, place in self._places.items() if self.isTabVisible(self.indexOf(place.page)))

    def set_wanted(self, views: Sequence[View]) -> None:
        """Give these a tab as far as there is room, the most wanted first."""
        self._wanted = tuple(dict.fromkeys(views))
        if self.view is None:
            self._guest = None
        self._fit()

    def setCurrentWidget(self, widget: QWidget) -> None:
        self._admit(widget)
        super().setCurrentWidget(widget)
        self._fit()

    def setCurrentIndex(self, index: int) -> None:
        page = self.widget(index)
        if page is not None:
            self.setCurrentWidget(page)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fit()

    def _view_of(self, page: QWidget | None) -> View | None:
        return next((view for view, place in self._places.items() if place.page is page), None)

    def _admit(self, page: QWidget) -> None:
        view = self._view_of(page)
        if view is None:
            return
        if view not in self._wanted:
            self._guest = view
        self.setTabVisible(self.indexOf(page), True)

    def _fit(self) -> None:
        """Show the wanted tabs that have room; what is looked at first, so that it never goes."""
        current = self.view
        if current is not None and current not in self._wanted:
            self._guest = current
        order = dict.fromkeys(view for view in (current, *self._wanted, self._guest) if view is not None)
        room = self.width() - self.more.sizeHint().width() - sum(map(self._bar.width_of, self._others()))
        chosen: set[View] = set()
        for view in order:
            room -= self._bar.width_of(self.indexOf(self.page(view)))
            if room < 0 and chosen:
                break
            chosen.add(view)
        for is_shown in (True, False):  # first those that come: the current one must not be passed on
            for view, place in self._places.items():
                if (view in chosen) is is_shown:
                    self.setTabVisible(self.indexOf(place.page), is_shown)
        self.more.setVisible(len(chosen) < len(self._places))

    def _others(self) -> list[int]:
        """The tabs that are shown and no views: the welcome page."""
        own = {self.indexOf(place.page) for place in self._places.values()}
        return [at for at in range(self.count()) if at not in own and self.isTabVisible(at)]

    def _fill_menu(self) -> None:
        self._menu.clear()
        shown = self.shown
        for view, place in self._places.items():
            if view not in shown:
                self._menu.addAction(place.action)


class _Bar(QTabBar):
    def width_of(self, index: int) -> int:
        """What the tab takes, also while it is hidden."""
        return self.tabSizeHint(index).width()
