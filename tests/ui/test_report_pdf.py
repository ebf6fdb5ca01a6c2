"""The PDF of a report: it opens, its text can be copied out, it holds its JSON and everything that is in it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from PySide6.QtCore import QSize
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.errors import StoreError
from app.interaction_log.reader import LogReader
from app.model.flow import FlowCheck, FlowRun, FlowStepRun, RunStatus, StepStatus
from app.reports import build, build_batch, digest, json_bytes, write_report
from app.reports.blocks import document
from app.reports.charts import mark_colour
from tests.unit import report_runs as kept
from tests.unit.interaction_log.planted import encodings
from ui.report_pdf import BOTTOM, PAGE_HEIGHT, PAGE_WIDTH, PT, pages_of, paint_page, pdf_bytes, write_pdf
from ui.theme import contrast

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogReader]:
    path = tmp_path_factory.mktemp("report") / "kept.mwk"
    kept.make_workspace(path)
    with LogReader(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(reader: LogReader) -> dict[str, Any]:
    return build(kept.make_run(), reader, version="1.2.3", secrets=[kept.SECRET])


@pytest.fixture(scope="module")
def pdf(qapp: QApplication, report: dict[str, Any]) -> PdfReader:
    return opened(pdf_bytes(report))


@pytest.fixture(scope="module")
def text(pdf: PdfReader) -> str:
    return words(pdf)


def opened(data: bytes) -> PdfReader:
    return PdfReader(io.BytesIO(data), strict=True)


def words(pdf: PdfReader) -> str:
    """All text, with single blanks."""
    return " ".join(" ".join(page.extract_text() for page in pdf.pages).split())


def shoot(report: dict[str, Any], file: Path, numbers: tuple[int, ...], dpi: int = 90) -> list[QImage]:
    """Keep pages as pictures."""
    pages = pages_of(document(report))
    images = []
    for number in numbers:
        scale = dpi / 72 / PT
        image = QImage(QSize(round(PAGE_WIDTH * scale), round(PAGE_HEIGHT * scale)), QImage.Format.Format_RGB32)
        image.fill(QColor("#ffffff"))
        painter = QPainter(image)
        painter.setRenderHint(QPainter.RenderHint.TextAntialiasing)
        painter.scale(scale, scale)
        paint_page(painter, pages[number - 1])
        painter.end()
        image.save(str(file.with_name(f"{file.name}-{number}.png")))
        images.append(image)
    return images


def test_it_opens_is_a4_and_carries_its_json(pdf: PdfReader, report: dict[str, Any]) -> None:
    assert all((page.mediabox.width, page.mediabox.height) == (595, 842) for page in pdf.pages)
    (data,) = pdf.attachments["report-5.json"]
    assert data == json_bytes(report)
    sha256 = hashlib.sha256(data).hexdigest()
    count = len(pdf.pages)
    for number, page in enumerate(pdf.pages, start=1):
        told = page.extract_text()
        assert "\t" not in told
        assert f"SHA-256 of the JSON: {sha256}" in told
        assert f"Page {number} of {count}" in told
    assert pdf.metadata is not None
    assert pdf.metadata.title == "Commissioning report: Column 1, LEM DCBM acceptance"
    assert sha256 == digest(report)


def test_its_text_can_be_copied_out(text: str, report: dict[str, Any]) -> None:
    for step in report["steps"]:
        assert step["title"] in text
        assert step["word"] in text
    for said in (
        "Commissioning report", "FAILED", "6 steps: 3 passed, 1 warning, 1 failed, 1 skipped.", "Stadtwerke & Söhne",
        "Identity and firmware", "371.2 V", "400 V +- 2 %", "not met", "Meter 4711 did not answer in 12 s.",
        "Signature", "Place, date", "DC voltage", "4 gatekeeper", kept.PHOTO.sha256, kept.MEMO.sha256,
    ):  # fmt: skip
        assert said in text, said
    assert "47 45 54 20 2f 76 31 2f 73 74 61 74 75 73" in text


def test_no_secret_is_in_it(pdf: PdfReader, text: str) -> None:
    plain = text.encode() + pdf.attachments["report-5.json"][0]
    for word in (kept.SECRET, kept.TOKEN):
        assert [name for name, spelled in encodings(word).items() if spelled in plain] == []


def pictures(pdf: PdfReader) -> list[tuple[int, int]]:
    """Width and height of every picture."""
    found = []
    for page in pdf.pages:
        resources: Any = page["/Resources"]
        for one in resources.get("/XObject", {}).values():
            image = one.get_object()
            if image["/Subtype"] == "/Image":
                found.append((int(image["/Width"]), int(image["/Height"])))
    return found


def test_photos_are_in_it(pdf: PdfReader) -> None:
    assert pictures(pdf) == [(480, 320)]


def test_a_broken_photo_is_named_and_nothing_else_is_lost(qtbot: QtBot, report: dict[str, Any]) -> None:
    broken = {**report, "pictures": {**report["pictures"], kept.PHOTO.sha256: b"\x89PNG\r\n\x1a\nbroken"}}
    made = opened(pdf_bytes(broken))
    assert pictures(made) == []
    told = " ".join(made.pages[1].extract_text().split())
    assert "wiring.png" in told
    assert "Signature" in told


def long_run() -> FlowRun:
    checks = tuple(FlowCheck(what=f"Value {n}", found="x" * 300, wanted="y " * 60, is_met=True) for n in range(4))
    steps = tuple(
        FlowStepRun(
            name=f"s{n}", status=list(StepStatus)[n % 7], checks=checks[: n % 3], text="A long reason. " * (n % 30),
            note="line\n" * (n % 24),
        )
        for n in range(18)
    )  # fmt: skip
    return kept.make_run(device="gone", steps=steps, text="Everything was long. " * 40, definition={})


def test_a_long_report_breaks_between_rows_and_stays_above_the_foot(
    qtbot: QtBot, reader: LogReader, artifacts: Path
) -> None:
    made = build(long_run(), reader, version="1")
    pdf = opened(pdf_bytes(made))
    bottom = (PAGE_HEIGHT - BOTTOM) / PT
    body = ""
    for number, page in enumerate(pdf.pages, start=1):
        low: list[str] = []
        high: list[str] = []

        def look(
            said: str,
            at: list[float],
            inside: list[float],
            _font: object,
            _size: object,
            low: list[str] = low,
            high: list[str] = high,
        ) -> None:
            y = inside[4] * at[1] + inside[5] * at[3] + at[5]
            (low if y < bottom else high).append(said)

        page.extract_text(visitor_text=look)
        foot = f"SHA-256 of the JSON: {digest(made)}Page {number} of {len(pdf.pages)}Meterwright 1"
        assert "".join("".join(low).split()) == foot.replace(" ", "")
        body += " " + " ".join("".join(high).split())
    assert [n for n in range(18) if f"s{n}" not in body] == []
    assert body.count("x") >= 300 * sum(n % 3 for n in range(18))
    shoot(made, artifacts / "report-long", (2,))


def test_a_batch_is_one_file(qtbot: QtBot, reader: LogReader, artifacts: Path) -> None:
    runs = [kept.make_run(batch=3), kept.make_run(id=6, batch=3, status=RunStatus.PASSED, text="")]
    made = build_batch(kept.make_batch(), reader, version="1", runs=runs)
    pdf = opened(pdf_bytes(made))
    assert pdf.attachments["batch-3.json"][0] == json_bytes(made)
    assert "2 of 2 devices: 1 failed, 1 passed." in " ".join(pdf.pages[0].extract_text().split())
    assert len(pages_of(document(made))) == len(pdf.pages) > 12
    shoot(made, artifacts / "report-batch", (1,))


def test_commissionings_of_prepaid_meters(qtbot: QtBot, reader: LogReader, artifacts: Path) -> None:
    made = build(kept.make_commissioning(), reader, version="1")
    assert "371 V is low." in " ".join(opened(pdf_bytes(made)).pages[0].extract_text().split())
    shoot(made, artifacts / "report-prepaid", (1,))


def test_pages_are_kept_to_be_looked_at(qtbot: QtBot, report: dict[str, Any], artifacts: Path) -> None:
    first, second, third = shoot(report, artifacts / "report", (1, 2, 3))
    for image in (first, second, third):
        margin = [image.pixelColor(x, y).name() for x in (2, image.width() - 3) for y in range(0, image.height(), 7)]
        assert set(margin) == {"#ffffff"}


def test_words_of_verdicts_can_be_read_on_paper() -> None:
    for status in (*StepStatus, *RunStatus):
        assert contrast(QColor(mark_colour(status)), QColor("#ffffff")) >= 4.5


# ---------------------------------------------------------------- writing


def test_an_older_file_is_replaced_whole_or_not_at_all(qtbot: QtBot, report: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "r.pdf"
    file.write_bytes(b"older")
    write_report(report, file, write_pdf)
    assert opened(file.read_bytes()).attachments["report-5.json"][0] == json_bytes(report)
    with pytest.raises(StoreError):
        write_pdf(report, tmp_path / "nowhere" / "r.pdf")
    assert [one.name for one in tmp_path.iterdir()] == ["r.pdf"]


def test_the_command_line_writes_it_without_a_window(tmp_path: Path) -> None:
    bare = kept.make_run(steps=(replace(kept.make_run().steps[5]),))
    kept.make_workspace(tmp_path / "w.mwk", bare, samples=0)
    code = (
        "from pathlib import Path\n"
        "from app.interaction_log.reader import LogReader\n"
        "from app.model.flow import FlowRun\n"
        "from app.reports import build, write_report\n"
        "from ui.report_pdf import write_pdf\n"
        f"with LogReader(Path({str(tmp_path / 'w.mwk')!r})) as reader:\n"
        "    report = build(reader.flows(FlowRun)[0], reader, version='1')\n"
        "for name in ('a.pdf', 'b.pdf'):\n"
        f"    write_report(report, Path({str(tmp_path)!r}) / name, write_pdf)\n"
    )
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("a.pdf", "b.pdf"):
        assert "TLS certificate" in words(opened((tmp_path / name).read_bytes()))
