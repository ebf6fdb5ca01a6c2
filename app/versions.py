"""What this program is made of: its parts with their versions and licences, as their own metadata tells."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.doctor import APPLICATION, installed_version, required_packages

OWN_LICENCE: Final = "Apache-2.0"
_LICENCE_FILE: Final = re.compile(r"(?:^|/)(?:licen[cs]e|copying|notice)[^/]*$", re.IGNORECASE)
_LONGEST: Final = 60  # characters; some put the whole text where a name belongs
_TEXT_BYTES: Final = 1 << 20
_CHECKOUT: Final = Path(__file__).parents[1] / "LICENSE"  # a program that runs from source is not installed


@dataclass(frozen=True, slots=True)
class Part:
    """``distribution`` is "" where the licence text is not among the installed files."""

    name: str
    version: str
    licence: str
    distribution: str = ""


def own_version() -> str:
    return installed_version(APPLICATION) or "from source"


def parts() -> tuple[Part, ...]:
    """Meterwright first, then what it stands on, then the libraries by name."""
    found = [
        Part("Meterwright", own_version(), OWN_LICENCE, APPLICATION),
        Part("Python", platform.python_version(), "PSF-2.0"),
        Part("SQLite", sqlite3.sqlite_version, "public domain"),
    ]
    libraries = []
    for name in sorted(required_packages(), key=str.casefold):
        version = installed_version(name)
        if version is not None:
            libraries.append(Part(name, version, _licence(name), name))
    return (*found, *libraries)


def licence_text(distribution: str) -> str:
    """The texts of the licence that came with a part; our own is that of the checkout where none is installed. Empty
    where there is none.
    """
    if not distribution:
        return ""
    texts = _installed_texts(distribution)
    if not texts and distribution == APPLICATION and _CHECKOUT.is_file():
        texts = [_CHECKOUT.read_text("utf-8").strip("\n").rstrip()]
    return "\n\n\n".join(dict.fromkeys(texts))


def _installed_texts(distribution: str) -> list[str]:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    texts = []
    for file in files:
        if _LICENCE_FILE.search(str(file)):
            try:
                texts.append(file.read_text("utf-8")[:_TEXT_BYTES].strip("\n").rstrip())
            except (OSError, UnicodeDecodeError):
                continue
    return texts


def _licence(name: str) -> str:
    metadata = importlib.metadata.metadata(name)
    expression = metadata["License-Expression"].strip() if "License-Expression" in metadata else ""
    if expression:
        return expression
    told = metadata["License"].strip() if "License" in metadata else ""
    if told and len(told) <= _LONGEST and "\n" not in told and told != "UNKNOWN":
        return told
    classified = [
        line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if line.startswith("License ::")
    ]
    return ", ".join(classified) or "see its text"
