"""Reports of commissioning runs: JSON, HTML and PDF from the same data.

``build`` makes the data of one run, ``build_batch`` that of a batch; ``json_bytes`` and ``html_page`` turn it into
files. A PDF needs Qt, which the core does not know: the window hands its writer over as ``PdfWriter``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from app.errors import ParameterError
from app.interaction_log.transfer import whole_binary
from app.reports.build import build, build_batch, digest, json_bytes
from app.reports.html import html_page

__all__ = [
    "FORMS",
    "PdfWriter",
    "build",
    "build_batch",
    "check_form",
    "digest",
    "html_page",
    "json_bytes",
    "write_report",
]

PdfWriter: TypeAlias = Callable[[Mapping[str, Any], Path], None]
"""Writes a report as PDF. Raises StoreError when the file cannot be written."""

FORMS: Final = (".pdf", ".html", ".htm", ".json")


def check_form(file: Path, pdf: PdfWriter | None) -> None:
    """Whether a report can be written under this name; to be asked before a run begins.

    Raises:
        ParameterError: another ending, or PDF where there is nobody to write it.
    """
    form = file.suffix.lower()
    if form not in FORMS:
        raise ParameterError(f"{file.name}: the name of a report must end with .pdf, .html or .json.", "report")
    if form == ".pdf" and pdf is None:
        raise ParameterError(
            f"{file.name}: a PDF needs the program with its window. Name a file that ends with .html or .json.",
            "report",
        )


def write_report(report: Mapping[str, Any], file: Path, pdf: PdfWriter | None = None) -> None:
    """Write a report in the form that the file's name asks for. It appears only when it is whole.

    Raises:
        ParameterError: as ``check_form``.
        StoreError: the file cannot be written.
    """
    check_form(file, pdf)
    form = file.suffix.lower()
    if form == ".pdf":
        assert pdf is not None  # checked above
        pdf(report, file)
        return
    data = json_bytes(report) if form == ".json" else html_page(report).encode("utf-8")
    with whole_binary(file) as out:
        out.write(data)
