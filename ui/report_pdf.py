"""A report as a PDF on A4: the blocks of ``app/reports/blocks.py``, laid out by hand on pages.

Coordinates are tenths of a point. The JSON goes along as an attachment, its SHA-256 stands at the foot of every page.
A report is paper, so it wears no theme: its few colours are those of the HTML form.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QMarginsF, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontDatabase,
    QGuiApplication,
    QImage,
    QImageReader,
    QPageSize,
    QPainter,
    QPdfWriter,
    QPen,
    QTextLayout,
    QTextLine,
    QTextOption,
)
from PySide6.QtSvg import QSvgRenderer

from app.errors import StoreError
from app.interaction_log.transfer import whole_binary
from app.reports import blocks as b
from app.reports import json_bytes
from app.reports.charts import mark_colour, mark_svg

PT: Final = 10.0  # units of a point
MM: Final = 72 / 25.4 * PT
RESOLUTION: Final = 720  # units of an inch

PAGE_WIDTH: Final = 210 * MM
PAGE_HEIGHT: Final = 297 * MM
LEFT: Final = 16 * MM
TOP: Final = 22 * MM
BOTTOM: Final = PAGE_HEIGHT - 20 * MM
WIDTH: Final = PAGE_WIDTH - 2 * LEFT

BODY_PT: Final = 8.5
SMALL_PT: Final = 7.5
FIXED_PT: Final = 7.0
HEADING_PT: Final = (13.5, 10.5)
PICTURE_HEIGHT: Final = 70 * MM
PICTURE_PIXELS: Final = 1_600  # of the longer side
GAP: Final = 5 * MM
LABEL: Final = 27 * MM  # width of a fact's name
SIGN_HEIGHT: Final = 26 * MM  # of one person
PAD: Final = 1.6 * PT  # above and below a cell's text

_INK: Final = "#181c21"
_DIMMED: Final = "#525b66"
_LINE: Final = "#d3d8de"
_STRONG: Final = "#8a94a0"
_SANS: Final = ("Noto Sans", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans")
_FIXED: Final = ("DejaVu Sans Mono", "Noto Sans Mono", "Consolas", "Menlo", "Courier New")

Draw = Callable[[QPainter], None]


def write_pdf(report: Mapping[str, Any], path: Path) -> None:
    """Write a report; the file appears under its name only when it is whole. This is a ``PdfWriter``.

    May be called without a window: then it makes the Qt application that fonts need.

    Raises:
        StoreError: the file cannot be written.
    """
    with ExitStack() as stack:
        if QGuiApplication.instance() is None:
            is_bare = sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
            made = QGuiApplication(["meterwright", *(("-platform", "offscreen") if is_bare else ())])
            stack.callback(made.shutdown)
        data = pdf_bytes(report)
    with whole_binary(path) as out:
        out.write(data)


def pdf_bytes(report: Mapping[str, Any]) -> bytes:
    """The PDF of a report.

    Raises:
        StoreError: Qt could not make it.
    """
    document = b.document(report)
    pages = pages_of(document)
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    writer = QPdfWriter(buffer)
    writer.setPageSize(QPageSize(QPageSize.PageSizeId.A4))
    writer.setPageMargins(QMarginsF(0, 0, 0, 0))
    writer.setResolution(RESOLUTION)
    writer.setTitle(f"{document.title}: {document.subject}")
    writer.setCreator(document.program)
    writer.addFileAttachment(document.file_name, QByteArray(json_bytes(report)), "application/json")
    painter = QPainter()
    if not painter.begin(writer):
        raise StoreError("The PDF could not be begun. Save the report as HTML instead.")
    for number, page in enumerate(pages):
        if number:
            writer.newPage()
        paint_page(painter, page)
    painter.end()
    return _with_spaces(bytes(buffer.data().data()))


def _with_spaces(pdf: bytes) -> bytes:
    """Qt writes that the glyph of a space means a tabulator, the first character that has this glyph; text copied out
    would be full of them. The tables of meanings stand in the file as they are, so the length stays the same.
    """

    def in_table(found: re.Match[bytes]) -> bytes:
        rows = re.sub(rb"\[[^\]]*\]", lambda row: row[0].replace(b"<0009>", b"<0020>"), found[0])
        return re.sub(rb"(?m)^(<[0-9A-F]{4}> <[0-9A-F]{4}> )<0009>$", rb"\1<0020>", rows)

    return re.sub(rb"begincmap\n.*?endcmap\n", in_table, pdf, flags=re.DOTALL)


def pages_of(document: b.Document) -> list[list[Draw]]:
    """What is drawn on each page, for ``paint_page``."""
    return _Pages(document).pages()


def paint_page(painter: QPainter, page: Sequence[Draw]) -> None:
    """One page; the painter's unit is a tenth of a point."""
    for draw in page:
        painter.save()
        draw(painter)
        painter.restore()


# ---------------------------------------------------------------- text


def _font(size_pt: float, *, bold: bool = False, fixed: bool = False) -> QFont:
    """By its height in units, so that the layout is the same on every device."""
    wanted = _FIXED if fixed else _SANS
    known = set(QFontDatabase.families())
    found = [family for family in wanted if family in known]
    which = QFontDatabase.SystemFont.FixedFont if fixed else QFontDatabase.SystemFont.GeneralFont
    font = QFont(QFontDatabase.systemFont(which))
    if found:
        font.setFamilies(found)
    font.setPixelSize(round(size_pt * PT))
    font.setBold(bold)
    font.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    for ligatures in ("liga", "clig", "dlig"):  # "ff" of a hash must be copied out as two letters
        font.setFeature(QFont.Tag(ligatures), 0)
    return font


class _Fonts:
    """Every font of the report, made once."""

    def __init__(self) -> None:
        self.title = _font(21, bold=True)
        self.verdict = _font(15, bold=True)
        self.headings = tuple(_font(size, bold=True) for size in HEADING_PT)
        self.subject = _font(10.5)
        self.body = _font(BODY_PT)
        self.bold = _font(BODY_PT, bold=True)
        self.small = _font(SMALL_PT)
        self.small_bold = _font(SMALL_PT, bold=True)
        self.fixed = _font(FIXED_PT, fixed=True)
        self.sum = _font(6.2, fixed=True)


class _Text:
    """Words in a column; broken between words, and inside one only where it is wider than the column."""

    def __init__(
        self,
        text: str,
        font: QFont,
        width: float,
        colour: str = _INK,
        align: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignLeft,
    ) -> None:
        self._layout = QTextLayout(text.replace("\n", "\u2028"), font)
        self._colour = QColor(colour)
        option = QTextOption(align)
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self._layout.setTextOption(option)
        self.lines: list[QTextLine] = []
        self.height = 0.0
        self._layout.beginLayout()
        while text and (line := self._layout.createLine()).isValid():
            line.setLineWidth(width)
            line.setPosition(QPointF(0, self.height))
            self.height += line.height() * 1.04
            self.lines.append(line)
        self._layout.endLayout()

    def draw(self, painter: QPainter, x: float, y: float) -> None:
        painter.setPen(self._colour)
        self._layout.draw(painter, QPointF(x, y))

    def line_height(self, index: int) -> float:
        return self.lines[index].height() * 1.04

    def draw_line(self, painter: QPainter, index: int, x: float, y: float) -> None:
        painter.setPen(self._colour)
        line = self.lines[index]
        line.draw(painter, QPointF(x, y - line.y()))

    @property
    def natural_width(self) -> float:
        return max((line.naturalTextWidth() for line in self.lines), default=0.0)


def _rule(y: float, colour: str, width: float, x: float = LEFT, length: float = WIDTH) -> Draw:
    def draw(painter: QPainter) -> None:
        painter.setPen(QPen(QColor(colour), width))
        painter.drawLine(QPointF(x, y), QPointF(x + length, y))

    return draw


def _svg(svg: str, rect: QRectF) -> Draw:
    renderer = QSvgRenderer(QByteArray(svg.encode()))

    def draw(painter: QPainter) -> None:
        renderer.render(painter, rect)

    return draw


# ---------------------------------------------------------------- a cell and a row


def _columns(table: b.Table) -> list[tuple[float, float]]:
    """Left edge from the table's, and width for text, of each column; numbers keep off what stands right of them."""
    whole = sum(column.share for column in table.columns)
    found: list[tuple[float, float]] = []
    x = 0.0
    for index, column in enumerate(table.columns):
        width = WIDTH * column.share / whole
        is_last = index + 1 == len(table.columns)
        found.append((x, width - (0.0 if is_last else 4.5 * MM if column.is_number else 2.2 * MM)))
        x += width
    return found


class _Cell:
    """A cell's text and note, with room for the shape of its verdict."""

    def __init__(self, cell: b.Cell, column: b.Column, width: float, fonts: _Fonts) -> None:
        right = column.is_number
        align = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
        self._mark = cell.mark
        self._indent = 10 * PT if cell.mark else 0.0
        colour = mark_colour(cell.mark) if cell.mark else _INK
        font = fonts.bold if cell.is_bold else fonts.body
        self._text = _Text(cell.text, font, width - self._indent, colour, align)
        self._note = _Text(cell.note, fonts.small, width, _DIMMED, align)
        self.height = max(self._text.height, 9 * PT if cell.mark else 0.0) + self._note.height

    def draws(self, x: float, y: float) -> list[Draw]:
        found: list[Draw] = []
        if self._mark:
            side = 7.5 * PT
            found.append(_svg(mark_svg(self._mark), QRectF(x, y + 1.8 * PT, side, side)))
        found.append(partial(self._text.draw, x=x + self._indent, y=y))
        found.append(partial(self._note.draw, x=x, y=y + self._text.height))
        return found


class _Row:
    """One row of a table, laid out."""

    def __init__(self, cells: Sequence[b.Cell], table: b.Table, fonts: _Fonts, *, begins: bool = False) -> None:
        self._begins = begins
        self._cells = [
            (x, _Cell(cell, column, width, fonts))
            for cell, column, (x, width) in zip(cells, table.columns, _columns(table), strict=True)
        ]
        self.height = max((cell.height for _x, cell in self._cells), default=0.0) + 2 * PAD

    def draws(self, y: float) -> list[Draw]:
        found: list[Draw] = [_rule(y, _STRONG if self._begins else _LINE, 6 if self._begins else 4)]
        for x, cell in self._cells:
            found += cell.draws(LEFT + x, y + PAD)
        return found


class _Head:
    """The titles of a table's columns, on every page of it."""

    def __init__(self, table: b.Table, fonts: _Fonts) -> None:
        self._texts: list[tuple[float, _Text]] = []
        for column, (x, width) in zip(table.columns, _columns(table), strict=True):
            align = Qt.AlignmentFlag.AlignRight if column.is_number else Qt.AlignmentFlag.AlignLeft
            self._texts.append((x, _Text(column.title, fonts.small_bold, width, _DIMMED, align)))
        self.height = max(text.height for _x, text in self._texts) + 2 * PAD

    def draws(self, y: float) -> list[Draw]:
        def draw(painter: QPainter) -> None:
            for x, text in self._texts:
                text.draw(painter, LEFT + x, y + PAD)

        return [draw, _rule(y + self.height - 2, _DIMMED, 8)]


# ---------------------------------------------------------------- pages


class _Pages:
    """Blocks placed one below the other on as many pages as they need."""

    def __init__(self, document: b.Document) -> None:
        self._document = document
        self._fonts = _Fonts()
        self._pages: list[list[Draw]] = [[]]
        self._y = TOP
        self._begin()
        blocks = document.blocks
        for index, block in enumerate(blocks):
            self._place(block, blocks[index + 1 :])

    def pages(self) -> list[list[Draw]]:
        """What is drawn on each page, head and foot with the number of pages included."""
        count = len(self._pages)
        return [
            [*(self._running_head() if number > 1 else []), *page, *self._foot(number, count)]
            for number, page in enumerate(self._pages, start=1)
        ]

    # ---- the frame of a page
    def _begin(self) -> None:
        fonts, document = self._fonts, self._document
        self._y = 17 * MM
        self._column(document.title, fonts.title)
        self._column(document.subject, fonts.subject, _DIMMED)
        self._y += 1.5 * MM
        self._add(_rule(self._y, _INK, 12))
        self._y += 3 * MM

    def _running_head(self) -> list[Draw]:
        fonts, document = self._fonts, self._document
        left = _Text(document.subject, fonts.small, WIDTH * 0.7, _DIMMED)
        right = _Text(document.title, fonts.small, WIDTH * 0.28, _DIMMED, Qt.AlignmentFlag.AlignRight)
        y = 12 * MM

        def draw(painter: QPainter) -> None:
            if left.lines:
                left.draw_line(painter, 0, LEFT, y)
            right.draw(painter, LEFT + WIDTH * 0.72, y)

        return [draw, _rule(y + 11 * PT, _LINE, 5)]

    def _foot(self, number: int, count: int) -> list[Draw]:
        fonts, document = self._fonts, self._document
        y = PAGE_HEIGHT - 14 * MM
        told = f"SHA-256 of the JSON: {document.sha256}"
        left = _Text(told, fonts.sum, WIDTH * 0.82, _DIMMED)
        align = Qt.AlignmentFlag.AlignRight
        right = _Text(f"Page {number} of {count}", fonts.small, WIDTH * 0.17, _DIMMED, align)
        program = _Text(document.program, fonts.small, WIDTH * 0.5, _DIMMED)

        def draw(painter: QPainter) -> None:
            left.draw(painter, LEFT, y + 3 * PT)
            right.draw(painter, LEFT + WIDTH * 0.83, y + 2 * PT)
            program.draw(painter, LEFT, y + 12 * PT)

        return [_rule(y, _STRONG, 5), draw]

    # ---- placing
    def _add(self, *draws: Draw) -> None:
        self._pages[-1].extend(draws)

    def _new_page(self) -> None:
        self._pages.append([])
        self._y = TOP

    def _room(self, height: float) -> None:
        """A new page unless ``height`` fits below, or the page is empty."""
        if self._y + height > BOTTOM and self._y > TOP:
            self._new_page()

    def _column(self, text: str, font: QFont, colour: str = _INK) -> None:
        """A text over the whole width; breaks between its lines."""
        words = _Text(text, font, WIDTH, colour)
        for index in range(len(words.lines)):
            height = words.line_height(index)
            self._room(height)
            self._add(partial(words.draw_line, index=index, x=LEFT, y=self._y))
            self._y += height

    def _place(self, block: b.Block, following: Sequence[b.Block]) -> None:
        match block:
            case b.NewPage():
                if self._y > TOP:
                    self._new_page()
            case b.Heading():
                self._heading(block, following)
            case b.Words():
                colour = _INK if not block.tone else _DIMMED if block.tone == "dimmed" else mark_colour(block.tone)
                self._column(block.text, self._fonts.small if block.tone == "dimmed" else self._fonts.body, colour)
                self._y += 1.2 * MM
            case b.Verdict():
                self._verdict(block)
            case b.Facts():
                self._facts(block)
            case b.Table():
                self._table(block)
            case b.Drawing():
                height = WIDTH * block.height / block.width
                self._room(height)
                self._add(_svg(block.svg, QRectF(LEFT, self._y, WIDTH, height)))
                self._y += height + 2 * MM
            case b.Pictures():
                for at in range(0, len(block.items), 2):
                    self._pictures(block.items[at : at + 2])
            case b.Dump():
                self._dump(block)
            case b.Signatures():
                for role in block.roles:
                    self._sign(role)
            case _:
                assert_never(block)

    def _least(self, following: Sequence[b.Block]) -> float:
        """What of the next blocks has to stand on the page of their heading."""
        match following[0] if following else None:
            case b.Signatures(roles=roles):
                return SIGN_HEIGHT * len(roles)
            case b.Drawing(width=width, height=height):
                return WIDTH * height / width
            case b.Pictures():
                return PICTURE_HEIGHT
            case b.Heading():
                return 8 * MM + self._least(following[1:])
            case b.Words() if len(following) > 1 and isinstance(following[1], b.Drawing | b.Pictures | b.Table):
                return 6 * MM + self._least(following[1:])
            case _:
                return 18 * MM

    def _heading(self, block: b.Heading, following: Sequence[b.Block]) -> None:
        font = self._fonts.headings[block.level - 1]
        indent = 14 * PT if block.mark else 0.0
        above = (7 if block.level == 1 else 4) * MM if self._y > TOP else 0.0
        text = _Text(block.text, font, WIDTH - indent)
        self._room(above + text.height + self._least(following))
        self._y += above if self._y > TOP else 0.0
        if block.mark:
            side = 9.5 * PT
            above = self._y + (text.line_height(0) - side) / 2
            self._add(_svg(mark_svg(block.mark), QRectF(LEFT, above, side, side)))
        self._add(partial(text.draw, x=LEFT + indent, y=self._y))
        self._y += text.height + (1.6 if block.level == 1 else 0.8) * MM

    def _verdict(self, block: b.Verdict) -> None:
        colour = mark_colour(block.status)
        word = _Text(block.word.upper(), self._fonts.verdict, WIDTH * 0.6, colour)
        left = 14 * MM + word.natural_width + 6 * MM
        text = _Text(block.text, self._fonts.body, WIDTH - left - 4 * MM)
        height = max(13 * MM, text.height + 5 * MM)
        self._room(height)
        y = self._y
        side = 7.5 * MM

        def draw(painter: QPainter) -> None:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(QColor(colour), 12))
            painter.drawRoundedRect(QRectF(LEFT + 6, y, WIDTH - 12, height), 10 * PT / 4, 10 * PT / 4)
            word.draw(painter, LEFT + 14 * MM, y + (height - word.height) / 2)
            text.draw(painter, LEFT + left, y + (height - text.height) / 2)

        self._add(draw, _svg(mark_svg(block.status), QRectF(LEFT + 4 * MM, y + (height - side) / 2, side, side)))
        self._y += height + 3 * MM

    def _facts(self, block: b.Facts) -> None:
        """Two pairs in a line; a long value has the line for itself."""
        half = (WIDTH - GAP) / 2
        pending: list[tuple[str, _Text]] = []
        for name, value in block.rows:
            text = _Text(value, self._fonts.body, half - LABEL)
            if len(text.lines) > 1:
                self._pair(pending)
                pending = []
                self._pair([(name, _Text(value, self._fonts.body, WIDTH - LABEL))])
                continue
            pending.append((name, text))
            if len(pending) == 2:
                self._pair(pending)
                pending = []
        self._pair(pending)
        self._y += 1.5 * MM

    def _pair(self, facts: Sequence[tuple[str, _Text]]) -> None:
        if not facts:
            return
        names = [_Text(name, self._fonts.body, LABEL - 2 * MM, _DIMMED) for name, _value in facts]
        height = max(max(name.height, value.height) for name, (_name, value) in zip(names, facts, strict=True)) + PAD
        self._room(height)
        y = self._y

        def draw(painter: QPainter) -> None:
            for index, (name, (_name, value)) in enumerate(zip(names, facts, strict=True)):
                x = LEFT + index * ((WIDTH - GAP) / 2 + GAP)
                name.draw(painter, x, y)
                value.draw(painter, x + LABEL, y)

        self._add(draw)
        self._y += height

    def _table(self, block: b.Table) -> None:
        fonts = self._fonts
        head = _Head(block, fonts)
        rows = [_Row(row.cells, block, fonts, begins=row.begins) for row in block.rows]
        self._room(head.height + sum(row.height for row in rows[:2]))
        self._add(*head.draws(self._y))
        self._y += head.height
        for index, row in enumerate(rows):
            needed = row.height
            if block.rows[index].begins and index + 1 < len(rows) and not block.rows[index + 1].begins:
                needed += rows[index + 1].height
            if self._y + needed > BOTTOM:
                self._new_page()
                self._add(*head.draws(self._y))
                self._y += head.height
            self._add(*row.draws(self._y))
            self._y += row.height
        self._add(_rule(self._y, _LINE, 4))
        self._y += 3 * MM

    def _pictures(self, pictures: Sequence[b.Picture]) -> None:
        half = (WIDTH - GAP) / 2
        images = [_image(picture.data) for picture in pictures]
        captions = [_Text(picture.caption, self._fonts.small, half, _DIMMED) for picture in pictures]
        sums = [_Text(picture.sha256, self._fonts.sum, half, _DIMMED) for picture in pictures]
        sizes = [_fitted(image, half) for image in images]
        tallest = max(size.height() for size in sizes)
        told = max(caption.height + sum_.height for caption, sum_ in zip(captions, sums, strict=True))
        height = tallest + told + 3 * MM
        self._room(height)
        y = self._y

        def draw(painter: QPainter) -> None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            for index, (image, size, caption, sum_) in enumerate(zip(images, sizes, captions, sums, strict=True)):
                x = LEFT + index * (half + GAP)
                if not image.isNull():
                    painter.drawImage(QRectF(QPointF(x, y), size.toSizeF()), image)
                below = y + tallest + 1 * MM
                caption.draw(painter, x, below)
                sum_.draw(painter, x, below + caption.height)

        self._add(draw)
        self._y += height

    def _dump(self, block: b.Dump) -> None:
        fonts = self._fonts
        title = _Text(block.title, fonts.small, WIDTH, _DIMMED)
        lines = [_Text(line, fonts.fixed, WIDTH) for line in block.lines]
        self._room(title.height + sum(line.height for line in lines[:3]) + 1.5 * MM)
        self._y += 1.5 * MM
        self._column(block.title, fonts.small, _DIMMED)
        for line in lines:
            self._room(line.height)
            self._add(partial(line.draw, x=LEFT, y=self._y))
            self._y += line.height

    def _sign(self, role: str) -> None:
        self._room(SIGN_HEIGHT)
        fonts = self._fonts
        title = _Text(role, fonts.bold, WIDTH)
        width = (WIDTH - 2 * GAP) / 3
        labels = [_Text(label, fonts.small, width, _DIMMED) for label in ("Name", "Signature", "Place, date")]
        top = self._y
        y = top + SIGN_HEIGHT - 9 * MM

        def draw(painter: QPainter) -> None:
            title.draw(painter, LEFT, top)
            for index, label in enumerate(labels):
                x = LEFT + index * (width + GAP)
                painter.setPen(QPen(QColor(_INK), 6))
                painter.drawLine(QPointF(x, y), QPointF(x + width, y))
                label.draw(painter, x, y + 1 * MM)

        self._add(draw)
        self._y += SIGN_HEIGHT


def _image(data: bytes) -> QImage:
    """A photo the right way up and not larger than paper can show; a null image where it is none."""
    if not data:
        return QImage()
    buffer = QBuffer()
    buffer.setData(QByteArray(data))
    buffer.open(QIODevice.OpenModeFlag.ReadOnly)
    reader = QImageReader(buffer)
    reader.setAutoTransform(True)
    size = reader.size()
    if size.isValid() and max(size.width(), size.height()) > PICTURE_PIXELS:
        reader.setScaledSize(size.scaled(PICTURE_PIXELS, PICTURE_PIXELS, Qt.AspectRatioMode.KeepAspectRatio))
    return reader.read()


def _fitted(image: QImage, width: float) -> QSize:
    if image.isNull():
        return QSize(0, 0)
    return image.size().scaled(int(width), int(PICTURE_HEIGHT), Qt.AspectRatioMode.KeepAspectRatio)
