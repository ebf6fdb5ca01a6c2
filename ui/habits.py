"""What people are used to from any program: settings, shortcuts, about, the log folder, files used lately and dropped.

``MainWindow`` has one method for each row of the table of actions; those of this kind come here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QSettings, QUrl
from PySide6.QtGui import QDesktopServices

from app.model.reading import Severity
from ui.actions import RECENT
from ui.arrivals import SITE_FILES, Arrivals
from ui.preferences import Preferences
from ui.recent import RecentFiles
from ui.status_bar import Mode
from ui.theme import Theme

if TYPE_CHECKING:
    from app.config import Profile
    from app.workbench import Workbench
    from ui.main_window import MainWindow


AskFile = Callable[[str, str, Callable[[str], None]], None]
"""Title, name patterns, and what to do with the file that was chosen."""


class Habits(QObject):
    """Works on ``window``, through what is public of it.

    Attributes:
        on_batch: is given a batch file that was dropped or handed over; None: nothing takes batches.
    """

    def __init__(self, window: MainWindow, theme: Theme, settings: QSettings, ask_file: AskFile) -> None:
        super().__init__(window)
        self._window = window
        self._ask_file = ask_file
        self.on_batch: Callable[[str], None] | None = None
        self._theme = theme
        self.preferences = Preferences(settings, self)
        self.recent = RecentFiles(settings, self)
        self.recent.show_in(window.verbs.submenu(RECENT))
        self.recent.chosen.connect(self.open_recent)
        self.recent.changed.connect(self._show_recent)
        self.arrivals = Arrivals(window, self, theme, self._workbench)

    @property
    def _profile(self) -> Profile | None:
        return self._window.profile

    def _workbench(self) -> Workbench | None:
        """Of a workspace that may be changed."""
        session = self._window.session
        return session.workbench if session is not None and session.mode is Mode.LIVE else None

    def say(self, text: str, severity: Severity = Severity.INFO) -> None:
        self._window.say(text, severity)

    # ---------------------------------------------------------------- files

    def _show_recent(self) -> None:
        self._window.welcome.set_recent(self.recent.paths)

    def open_recent(self, path: str) -> None:
        """Open a file used lately; one that is gone is said to be, and made nowhere anew."""
        if Path(path).exists():
            self.open_file(path)
            return
        text = self.tr("{path} is not there any more: it was moved, or its disk is not connected.").format(path=path)
        self._window.notice.say(text, Severity.WARNING, self.tr("Take it off the list"), partial(self.forget, path))

    def forget(self, path: str) -> None:
        self.recent.forget(path)

    def open_file(self, path: str) -> None:
        """Open a log in place of what is open; asks while a write is under way."""
        window = self._window
        if not window.has_write_under_way:
            window.openRequested.emit(path)
            return
        from ui.dialogs.confirm import ask

        name = Path(path).name
        ask(
            window,
            title=self.tr("A write is under way"),
            text=self.tr("Open {name} now? A command that changes a meter is on its way.").format(name=name),
            detail=self.tr(
                "If this workspace is closed now, its outcome may stay unknown. It stands in the log and is checked "
                "when the workspace is opened next."
            ),
            verb=self.tr("Open {name} all the same").format(name=name),
            refuse=self.tr("Stay here"),
            on_yes=partial(window.openRequested.emit, path),
            theme=self._theme,
        )

    def take_batch(self, path: str) -> None:
        """A batch file goes to whoever asked for such files (``on_batch``)."""
        if self.on_batch is not None and self._workbench() is not None:
            self.on_batch(path)
            return
        text = self.tr(
            "{name} looks like a batch. Open the workspace in which it is to be carried out, then try again."
        )
        if self._workbench() is not None:
            text = self.tr("{name} is a table that is neither a log nor a site file; nothing here can be done with it.")
        self.say(text.format(name=Path(path).name), Severity.WARNING)

    def import_site(self) -> None:
        """Ask for a site file and read it into the workspace."""
        self._ask_file(self.tr("Read a site file"), SITE_FILES, self.arrivals.take_site)

    # ---------------------------------------------------------------- help and settings

    def show_settings(self) -> None:
        from ui.dialogs.settings import SettingsDialog

        session = self._window.session
        dialog = SettingsDialog(
            self._theme,
            self.preferences,
            self._profile,
            self._window,
            workspace=session.log.path if session is not None else None,
        )
        dialog.themeChosen.connect(self._window.set_theme)
        dialog.saved.connect(self._on_saved)
        dialog.open()

    def _on_saved(self, later: str) -> None:
        if later:
            self.say(later)

    def show_shortcuts(self) -> None:
        from ui.dialogs.shortcuts import ShortcutsDialog

        ShortcutsDialog(self._theme, self._window.verbs, self._window).show()

    def show_about(self) -> None:
        from ui.dialogs.about import AboutDialog

        AboutDialog(self._theme, self._profile, self._window).open()

    def open_log_folder(self) -> None:
        """Show the folder of the program's log and crash reports in the system's file manager."""
        profile = self._profile
        if profile is None:
            return
        if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(profile.logs))):
            text = self.tr("The log folder is {folder}. No program of this computer opens folders from here.")
            self.say(text.format(folder=profile.logs))
