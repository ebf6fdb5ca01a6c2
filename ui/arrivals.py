"""Files that come from outside: dragged onto the window, handed over by another start, or chosen in the menu.

What a file is, is told by its content; a log is opened, a site file is read into the workspace after a question, a
batch file goes to the batch.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from PySide6.QtCore import QEvent, QMimeData, QObject, Qt, Signal
from PySide6.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent
from PySide6.QtWidgets import QWidget

from app.errors import WorkbenchError
from app.model.device import Device
from app.model.reading import Severity
from ui.theme import Theme

if TYPE_CHECKING:
    from app.workbench import Workbench

HEAD_BYTES: Final = 64 << 10
SITE_FILES: Final = "*.toml *.csv"
_SQLITE: Final = b"SQLite format 3\0"
_LOGS: Final = (".mwk", ".jsonl")
_SITE_TABLE: Final = re.compile(r"^[ \t]*\[\[[ \t]*device[ \t]*\]\]", re.MULTILINE)
_SITE_COLUMNS: Final = frozenset({"id", "adapter"})


class FileKind(Enum):
    """What can be done with a file."""

    LOG = "log"  # a workspace or an export of one
    SITE = "site"
    BATCH = "batch"
    UNKNOWN = "unknown"


def kind_of(path: Path) -> FileKind:
    """What a file is, by its first bytes and, where they do not tell, its name.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    suffix = path.suffix.lower()
    if head.startswith(_SQLITE) or suffix in _LOGS:
        return FileKind.LOG
    if suffix == ".xlsx":
        return FileKind.BATCH
    text = head.decode("utf-8-sig", "replace")
    if suffix == ".toml":
        return FileKind.SITE if _SITE_TABLE.search(text) else FileKind.UNKNOWN
    if suffix == ".csv":
        return _kind_of_table(text)
    return FileKind.LOG if text.lstrip().startswith("{") else FileKind.UNKNOWN


def _kind_of_table(text: str) -> FileKind:
    from app.interaction_log.transfer import INTERACTION_CSV, SAMPLE_CSV

    first = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    columns = next(csv.reader([first], delimiter=";" if first.count(";") > first.count(",") else ","), [])
    if tuple(columns) in (INTERACTION_CSV, SAMPLE_CSV):
        return FileKind.LOG
    names = {column.strip().lower() for column in columns}
    return FileKind.SITE if names >= _SITE_COLUMNS else FileKind.BATCH


class Window(Protocol):
    """What files do to the window."""

    def open_file(self, path: str) -> None: ...
    def take_batch(self, path: str) -> None: ...
    def say(self, text: str, severity: Severity = Severity.INFO) -> None: ...


class Arrivals(QObject):
    """Watches ``window`` for files that are dragged onto it.

    Attributes:
        done: what a person did and how it is taken back.
    """

    done = Signal(str, object)  # what, Callable[[], bool]

    def __init__(self, window: QWidget, host: Window, theme: Theme, workbench: Callable[[], Workbench | None]) -> None:
        super().__init__(window)
        self._window = window
        self._host = host
        self._theme = theme
        self._workbench = workbench
        window.setAcceptDrops(True)
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._window and isinstance(event, QDropEvent):  # entering and moving are kinds of it
            files = local_files(event.mimeData())
            if not files:
                return False
            event.setDropAction(Qt.DropAction.CopyAction)
            event.accept()
            if not isinstance(event, QDragEnterEvent | QDragMoveEvent):
                self.take(files)
            return True
        return False

    def take(self, paths: Sequence[str]) -> None:
        """Do with files what they are for: one log, or site and batch files one after the other."""
        logs: list[str] = []
        for path in paths:
            name = Path(path).name
            try:
                kind = kind_of(Path(path))
            except OSError as fault:
                text = self.tr("{name} cannot be read ({why}). Check that it is still there and may be read.")
                self._host.say(text.format(name=name, why=fault.strerror or type(fault).__name__), Severity.BAD)
                return
            match kind:
                case FileKind.LOG:
                    logs.append(path)
                case FileKind.SITE:
                    self.take_site(path)
                case FileKind.BATCH:
                    self._host.take_batch(path)
                case FileKind.UNKNOWN:
                    text = self.tr(
                        "{name} is nothing that can be opened here. A workspace or log (*.mwk, *.jsonl, *.csv), a "
                        "site file (*.toml, *.csv) or a batch (*.csv, *.xlsx) can."
                    )
                    self._host.say(text.format(name=name), Severity.WARNING)
        if logs:
            self._host.open_file(logs[0])
        if len(logs) > 1:
            others = len(logs) - 1
            text = self.tr("One log is open at a time: {name}. The {n} others were left alone.", "", others)
            self._host.say(text.format(name=Path(logs[0]).name, n=others))

    # ---------------------------------------------------------------- site files

    def take_site(self, path: str) -> None:
        """Read a site file beside the window, then ask whether its devices are to be added."""
        from ui.dialogs.lab import Errand  # later than the first paint

        workbench = self._workbench()
        if workbench is None:
            text = self.tr("{name} is a site file. Open or make a workspace first, then drop it again.")
            self._host.say(text.format(name=Path(path).name), Severity.WARNING)
            return
        types = workbench.adapter_types()

        def work() -> list[Device]:
            from app.site_file import read_site

            return read_site(Path(path), types)

        Errand(work, partial(self._ask, path), lambda fault: self._host.say(str(fault), Severity.BAD), self)

    def _ask(self, path: str, devices: list[Device]) -> None:
        from ui.dialogs.confirm import ask

        workbench = self._workbench()
        if workbench is None:
            return
        name = Path(path).name
        known = {device.id: device for device in workbench.devices()}
        new = [device for device in devices if device.id not in known]
        changed = [device for device in devices if device.id in known and known[device.id] != device]
        if not new and not changed:
            text = self.tr("{name} has nothing new: all {n} of its devices stand in this workspace as they are there.")
            self._host.say(text.format(name=name, n=len(devices)))
            return
        detail = []
        count = len(new) + len(changed)
        if changed:
            text = self.tr(
                "{n} stand in this workspace already and get the settings of the file: {names}.", "", len(changed)
            )
            detail.append(text.format(n=len(changed), names=_some(changed)))
        detail.append(self.tr("No link is opened by this, and it can be undone."))
        ask(
            self._window,
            title=self.tr("Site file {name}").format(name=name),
            text=self.tr("Read {n} devices from {name} into this workspace?", "", count).format(n=count, name=name),
            detail=" ".join(detail),
            verb=self.tr("Read {n} devices", "", count).format(n=count),
            on_yes=partial(self._read, name, [one for one in devices if one in new or one in changed], known),
            theme=self._theme,
        )

    def _read(self, name: str, devices: list[Device], known: dict[str, Device]) -> None:
        workbench = self._workbench()
        if workbench is None:
            return
        saved: list[Device] = []
        try:
            for device in devices:  # parents come before their children
                workbench.save_device(device)
                saved.append(device)
        except WorkbenchError as fault:
            text = self.tr("{n} of {all} devices of {name} were read. {why}")
            self._host.say(text.format(n=len(saved), all=len(devices), name=name, why=fault), Severity.BAD)
        else:
            text = self.tr("{n} devices of {name} were read.", "", len(saved))
            self._host.say(text.format(n=len(saved), name=name))
        if saved:
            what = self.tr("{n} devices of {name} read", "", len(saved)).format(n=len(saved), name=name)
            self.done.emit(what, partial(self._take_back, saved, known))

    def _take_back(self, saved: list[Device], known: dict[str, Device]) -> bool:
        workbench = self._workbench()
        if workbench is None:
            return False
        try:
            for device in reversed(saved):
                before = known.get(device.id)
                if before is None:
                    workbench.remove_device(device.id)
                else:
                    workbench.save_device(before)
        except WorkbenchError as fault:
            self._host.say(str(fault), Severity.BAD)
            return False
        return True


def local_files(data: QMimeData) -> list[str]:
    """Paths of what is dragged, where all of it are files of this computer."""
    if not data.hasUrls():
        return []
    urls = data.urls()
    return [url.toLocalFile() for url in urls] if all(url.isLocalFile() for url in urls) else []


def _some(devices: Sequence[Device], most: int = 5) -> str:
    names = ", ".join(device.name for device in devices[:most])
    return f"{names}, …" if len(devices) > most else names
