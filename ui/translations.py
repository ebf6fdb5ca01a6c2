"""The language of the window: Meterwright's own translations and those of Qt, installed before the first widget.

The pseudo-locale (``METERWRIGHT_LANGUAGE=pseudo``, or ``language=pseudo`` in the settings) shows what a translator will
meet: every text that goes through Qt's translation stands in brackets, with accents, and 30 % longer; ``pseudo-rtl``
turns it round. What stands there without brackets is data, or cannot be translated.
"""

from __future__ import annotations

import importlib.resources
import logging
import os
import re
from collections.abc import Container
from importlib.resources.abc import Traversable
from typing import Final

from PySide6.QtCore import QCoreApplication, QLibraryInfo, QLocale, QObject, QTranslator

from ui.preferences import Language

_log = logging.getLogger(__name__)

FOLDER: Final = "translations"  # inside the package resources
SOURCE: Final = "en"  # the language of the texts in the program; its file has the plural forms only
VARIABLE: Final = "METERWRIGHT_LANGUAGE"  # one of ``Language``; it goes before the settings
OPENING, CLOSING = "\u27e6", "\u27e7"  # around what the pseudo-locale has translated
_ACCENTS: Final = str.maketrans(
    "ACDEGHIJKLNORSTUWYZacdeghijklnorstuwyz", "ÅÇÐÉĜĤÎĴĶĻÑÖŔŠŢÛŴÝŽåçðéĝĥîĵķļñöŕšţûŵýž"
)
# What is no word: fields, places, entities, a letter behind &, tags, patterns of file names.
_KEPT: Final = re.compile(r"(\{[^{}]*\}|%L?\d+|%n|&#?\w+;|&.|</?[a-z][^<>]*>|\(\*[^()]*\)|\n)")
_PATTERNS: Final = re.compile(r" ?\(\*[^()]*\)$")  # of a file dialog; they must come last
_LONGER: Final = 0.3


def pseudo_text(text: str) -> str:
    """A text as the pseudo-locale shows it; one that is in brackets already stays."""
    if not text.strip() or text.startswith(OPENING):
        return text
    patterns = _PATTERNS.search(text)
    words = text[: patterns.start()] if patterns is not None else text
    tail = patterns.group() if patterns is not None else ""
    shown = "".join(part if at % 2 else part.translate(_ACCENTS) for at, part in enumerate(_KEPT.split(words)))
    more = round(_LONGER * len(words))
    padding = ("~~~~~~~ " * (more // 8 + 1))[:more].rstrip()  # it breaks as words do
    return f"{OPENING}{shown}{padding}{CLOSING}{tail}"


class PseudoTranslator(QTranslator):
    """Translates everything, or the texts (context, source) that are ``known``; Qt's own always."""

    def __init__(
        self, parent: QObject | None = None, *, is_rtl: bool = False, known: Container[tuple[str, str]] | None = None
    ) -> None:
        super().__init__(parent)
        self._is_rtl = is_rtl
        self._known = known

    def isEmpty(self) -> bool:
        return False

    def translate(self, context: str, source: str, comment: str | None = None, n: int = -1) -> str | None:
        if source == "QT_LAYOUT_DIRECTION":
            return "RTL" if self._is_rtl else "LTR"
        if self._known is None or (context, source) in self._known or re.match("Q[A-Z]", context):
            return pseudo_text(source)
        return None  # the next class of tr() is asked, then the text itself is shown


def language_of(choice: Language) -> str:
    """The two letters of the language that is shown: the system's where it is one of ours, otherwise English."""
    if choice is not Language.SYSTEM:
        return choice.value
    ours = {one.value for one in Language if one is not Language.SYSTEM}
    spoken = (name.partition("-")[0].lower() for name in QLocale.system().uiLanguages())
    return next((name for name in spoken if name in ours), SOURCE)


def install(app: QCoreApplication, choice: Language, folder: Traversable | None = None) -> tuple[QTranslator, ...]:
    """Install what there is for a language and return it; numbers and dates of Qt's widgets follow it.

    The environment's METERWRIGHT_LANGUAGE goes before ``choice``, where it names a language. A language without a file
    of ours stays in English, also Qt's own words, so that no window speaks two languages. ``folder`` holds
    ``meterwright_XX.qm``; None: that of the package.
    """
    asked = os.environ.get(VARIABLE, "")
    choice = Language(asked) if asked in set(Language) else choice
    if choice in (Language.PSEUDO, Language.PSEUDO_RTL):
        pseudo = PseudoTranslator(app, is_rtl=choice is Language.PSEUDO_RTL)
        app.installTranslator(pseudo)
        return (pseudo,)
    language = language_of(choice)
    if choice is not Language.SYSTEM:
        QLocale.setDefault(QLocale(language))
    own = QTranslator(app)
    where = folder if folder is not None else importlib.resources.files("resources") / FOLDER
    file = where / f"meterwright_{language}.qm"
    with importlib.resources.as_file(file) as path:
        if not path.is_file() or not own.load(str(path)):
            _log.info("there is no translation for %s yet", language)
            return ()
    qt = QTranslator(app)
    installed = [own]
    if qt.load(f"qtbase_{language}", QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)):
        installed.insert(0, qt)
    for translator in installed:
        app.installTranslator(translator)
    return tuple(installed)
