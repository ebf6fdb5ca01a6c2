"""What a person has chosen for this computer: kept in the profile's ``window.ini``, the same for every workspace.

A value that cannot be (somebody edited the file) reads as the one a new profile has.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from PySide6.QtCore import QObject, QSettings, Signal

ARM_MINUTES: Final = 15  # design.md section 6
ARM_LEAST, ARM_MOST = 1, 120
LISTEN_HOST: Final = "127.0.0.1"
SCALES: Final = (0, 100, 125, 150, 175, 200)  # percent; 0: as the system says
_E = TypeVar("_E", bound=StrEnum)
_HOST: Final = re.compile(r"[0-9A-Za-z.:%\-]{1,253}")


class Language(StrEnum):
    """Languages of the window."""

    SYSTEM = "system"
    ENGLISH = "en"
    GERMAN = "de"
    FRENCH = "fr"
    TURKISH = "tr"
    PSEUDO = "pseudo"  # marks what is translated; for who writes the window (ui/translations.py)
    PSEUDO_RTL = "pseudo-rtl"


class Times(StrEnum):
    """In which zone times are shown. Files have UTC always."""

    LOCAL = "local"
    UTC = "utc"


class Preferences(QObject):
    """Typed access to the profile's settings; ``changed`` carries the name of what is another now."""

    changed = Signal(str)

    def __init__(self, settings: QSettings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._settings = settings

    @property
    def language(self) -> Language:
        return _one_of(Language, self._text("window/language"), Language.SYSTEM)

    @language.setter
    def language(self, value: Language) -> None:
        self._put("language", "window/language", value.value)

    @property
    def times(self) -> Times:
        return _one_of(Times, self._text("window/times"), Times.LOCAL)

    @times.setter
    def times(self, value: Times) -> None:
        self._put("times", "window/times", value.value)

    @property
    def zone(self) -> tzinfo | None:
        """Of the times that are shown; None: the computer's."""
        return UTC if self.times is Times.UTC else None

    @property
    def scale(self) -> int:
        """Percent; 0 as the system says. It counts from the next start."""
        value = self._number("window/scale", 0)
        return value if value in SCALES else 0

    @scale.setter
    def scale(self, value: int) -> None:
        self._put("scale", "window/scale", value)

    @property
    def export_folder(self) -> Path | None:
        """Where files for others are offered to be written; None: where the last one went."""
        text = self._text("files/export_folder")
        return Path(text) if text and Path(text).is_dir() else None

    @export_folder.setter
    def export_folder(self, value: Path | None) -> None:
        self._put("export_folder", "files/export_folder", str(value) if value is not None else "")

    @property
    def listen_host(self) -> str:
        """The address that the form of a new device offers where devices dial in."""
        text = self._text("network/listen_host")
        return text if is_host(text) else LISTEN_HOST

    @listen_host.setter
    def listen_host(self, value: str) -> None:
        self._put("listen_host", "network/listen_host", value)

    @property
    def arm_minutes(self) -> int:
        """How long writing to meters stays armed."""
        value = self._number("safety/arm_minutes", ARM_MINUTES)
        return value if ARM_LEAST <= value <= ARM_MOST else ARM_MINUTES

    @arm_minutes.setter
    def arm_minutes(self, value: int) -> None:
        self._put("arm_minutes", "safety/arm_minutes", value)

    def _text(self, key: str) -> str:
        kept = self._settings.value(key, "")
        return kept if isinstance(kept, str) else ""

    def _number(self, key: str, otherwise: int) -> int:
        kept = str(self._settings.value(key, otherwise))
        return int(kept) if re.fullmatch("[0-9]{1,4}", kept) else otherwise

    def _put(self, name: str, key: str, value: str | int) -> None:
        if self._settings.value(key) == value:
            return
        self._settings.setValue(key, value)
        self.changed.emit(name)


def is_host(text: str) -> bool:
    """Whether ``text`` may be the name or address of a host; whether it is one of this computer is not asked."""
    return _HOST.fullmatch(text) is not None


def _one_of(kind: type[_E], text: str, otherwise: _E) -> _E:
    try:
        return kind(text)
    except ValueError:
        return otherwise
