"""Files used lately: in the profile's settings, in a menu and on the welcome page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PySide6.QtCore import QObject, QSettings, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu

KEPT: Final = 10
_KEY: Final = "recent"
_NUMBERED: Final = 9  # of the entries have a digit to press


class RecentFiles(QObject):
    """The newest first. ``changed`` comes when the list is another one."""

    changed = Signal()
    chosen = Signal(str)

    def __init__(self, settings: QSettings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._settings = settings
        self._menu: QMenu | None = None

    @property
    def paths(self) -> list[str]:
        kept = self._settings.value(_KEY, [])
        if isinstance(kept, str):
            return [kept] if kept else []
        return [str(path) for path in kept] if isinstance(kept, list) else []

    def add(self, path: str) -> None:
        """Put a file at the head."""
        self._put([path, *(one for one in self.paths if one != path)][:KEPT])

    def forget(self, path: str) -> None:
        self._put([one for one in self.paths if one != path])

    def clear(self) -> None:
        self._put([])

    def _put(self, paths: list[str]) -> None:
        self._settings.setValue(_KEY, paths)
        self.fill()
        self.changed.emit()

    def show_in(self, menu: QMenu) -> None:
        """Keep ``menu`` as the list is."""
        self._menu = menu
        menu.triggered.connect(self._on_action)
        self.fill()

    def fill(self) -> None:
        menu = self._menu
        if menu is None:
            return
        for old in menu.actions():
            menu.removeAction(old)
            old.deleteLater()
        paths = self.paths
        for number, path in enumerate(paths, 1):
            where = Path(path)
            name = where.name.replace("&", "&&")
            title = self.tr("{name}   in {folder}").format(name=name, folder=str(where.parent).replace("&", "&&"))
            action = menu.addAction(f"&{number}  {title}" if number <= _NUMBERED else title)
            action.setObjectName(f"recent.{number}")
            action.setData(path)
            action.setToolTip(path)
            action.setStatusTip(self.tr("Open {path}.").format(path=path))
        if paths:
            menu.addSeparator()
            forget = menu.addAction(self.tr("&Forget these files"))
            forget.setObjectName("recent.forget")
            forget.setToolTip(self.tr("The list is emptied; the files stay where they are."))
        else:
            nothing = menu.addAction(self.tr("No file was opened yet"))
            nothing.setObjectName("recent.none")
            nothing.setEnabled(False)

    def _on_action(self, action: QAction) -> None:
        path = action.data()
        if path:
            self.chosen.emit(str(path))
        else:
            self.clear()
