"""Files of curves: CSV out and in, Parquet out.

What is written: a column ``time_utc`` (ISO 8601, UTC, microseconds) and one for each curve, named
``title [unit] (device)``; one row for each time at which any curve has a sample, an empty cell where a curve has none;
comma, dot decimals, UTF-8.

What is read besides: the delimiters ; and tab (with them a decimal comma may stand), a byte order mark, UTF-16 and
Windows-1252, lines of comment (#) and Excel's ``sep=;``, times as ISO 8601, as seconds, milliseconds, microseconds or
nanoseconds since 1970, or as seconds from a start; no header at all.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
import stat
import tempfile
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from app.errors import ConfigError
from app.lab.series import Series, SeriesKey, Times, Values, series_of, union_times
from app.model.moments import EPOCH, MICROSECOND, to_us

TIME_COLUMN: Final = "time_utc"
MAX_BYTES: Final = 1 << 30
MAX_CELLS: Final = 40_000_000  # 320 MB in memory
MAX_COLUMNS: Final = 512
MAX_LINE: Final = 1 << 20  # characters

_WRITE_ROWS: Final = 1 << 15
_READ_CHARS: Final = 1 << 22
_SNIFF_BYTES: Final = 1 << 16
_DELIMITERS: Final = ("\t", ";", ",")
_NAMES: Final = {"\t": "tab", ";": ";", ",": ","}
_OWN_TIME_CHARS: Final = len("2026-01-31T12:00:00.000000Z")
_FIRST_US: Final = -62_135_596_800_000_000  # the years 1 to 9999
_LAST_US: Final = 253_402_300_799_999_999
EPOCH_FROM_S: Final = 1e8  # 1973; a smaller number of seconds is counted from a start
_US_PER: Final = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6, "min": 6e7, "h": 3.6e9}
_BY_SIZE: Final = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (0.0, "s"))  # each reaches from 1973 to 5138
_EXPECTED_TIME: Final = "ISO 8601, or seconds, ms, µs or ns since 1970, or seconds from the start"
_MISSING: Final = frozenset({"", "-", "--", "nan", "null", "none", "na", "n/a", "#n/a", "inf", "-inf", "+inf", "ol"})
_TIME_NAMES: Final = frozenset(
    {
        "time",
        "timestamp",
        "time stamp",
        "datetime",
        "date time",
        "date",
        "epoch",
        "elapsed",
        "zeit",
        "zeitstempel",
        "datum",
    }
)

_OWN_HEAD: Final = re.compile(r"(?P<title>.*) \[(?P<unit>[^\[\]]*)\] \((?P<device>\S*|[^()]*)\)")
_FOREIGN_HEAD: Final = re.compile(r"(?P<title>.*?)\s*(?:\[(?P<unit>[^\[\]]*)\]|\((?P<round>[^()]*)\))")
_TIME_UNIT: Final = re.compile(r"(?:[\[(]\s*|_)(ns|us|µs|μs|ms|s|sec|min|h)\s*[\])]?\s*$")
_NUMBER: Final = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII)
_FORMULA: Final = re.compile(r"'*[=+\-@]")


# ---------------------------------------------------------------- out


def header(series: Sequence[Series]) -> list[str]:
    """The names of the columns: that of the times and ``title [unit] (device)`` for each curve."""
    return [TIME_COLUMN, *(_head(one) for one in series)]


def _head(one: Series) -> str:
    text = " ".join(f"{one.name} [{one.key.unit}] ({one.key.device})".split())
    return f"'{text}" if _FORMULA.match(text) else text  # a spreadsheet would run it


def write_csv(target: Path | TextIO, series: Sequence[Series]) -> None:
    """Write curves as CSV, to a stream or a file, which is replaced only when all of it has been written.

    Raises:
        OSError: the file cannot be written.
    """
    if isinstance(target, Path):
        with _whole_file(target) as path, path.open("w", encoding="utf-8", newline="") as out:
            write_csv(out, series)
        return
    csv.writer(target, lineterminator="\n").writerow(header(series))
    for times, cells in _blocks_of(series):
        columns = [np.datetime_as_string(times.view("M8[us]"), unit="us", timezone="UTC").tolist()]
        for places, values in cells:
            texts = list(map(repr, values.tolist()))
            if len(texts) < len(times):
                known, texts = texts, [""] * len(times)
                for place, text in zip(places.tolist(), known, strict=True):
                    texts[place] = text
            columns.append(texts)
        target.write("\n".join(map(",".join, zip(*columns, strict=True))))
        target.write("\n")


def write_parquet(path: Path, series: Sequence[Series]) -> None:
    """Write curves as Parquet: the columns of the CSV file, times as UTC microseconds, null where no sample is.

    Each column's metadata hold ``device``, ``quantity`` and ``unit``.

    Raises:
        ConfigError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    pa, parquet = _pyarrow()
    fields = [pa.field(TIME_COLUMN, pa.timestamp("us", tz="UTC"), nullable=False)]
    names = {TIME_COLUMN}
    for one in series:
        name = _unused(_head(one), names)
        names.add(name)
        metadata = {"device": one.key.device, "quantity": one.key.name, "unit": one.key.unit}
        fields.append(pa.field(name, pa.float64(), metadata=metadata))
    schema = pa.schema(fields)
    with _whole_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for times, cells in _blocks_of(series):
            columns = [pa.array(times, pa.timestamp("us", tz="UTC"))]
            for places, values in cells:
                column, is_missing = np.zeros(len(times)), np.ones(len(times), bool)
                column[places], is_missing[places] = values, False
                columns.append(pa.array(column, mask=is_missing))
            writer.write_table(pa.table(columns, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as exc:
        text = "Parquet needs pyarrow, which is not installed: install the extra meterwright[parquet], or write CSV."
        raise ConfigError(text) from exc


def _blocks_of(series: Sequence[Series]) -> Iterator[tuple[Times, list[tuple[Times, Values]]]]:
    """Rows of the table in blocks: their times and, for each curve, the rows it has a sample in and the samples."""
    times = union_times(series)
    for start in range(0, len(times), _WRITE_ROWS):
        block = times[start : start + _WRITE_ROWS]
        cells: list[tuple[Times, Values]] = []
        for one in series:
            a = int(np.searchsorted(one.times, block[0]))
            b = int(np.searchsorted(one.times, block[-1], side="right"))
            cells.append((np.searchsorted(block, one.times[a:b]), one.values[a:b]))
        yield block, cells


def _unused(name: str, taken: Container[str]) -> str:
    """``name``, with a number behind it where it is taken."""
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name} ({count})"
    return free


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place when all went well, and vanishes otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it for the owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------- in


def read_csv(
    path: Path,
    *,
    zone: tzinfo = UTC,
    start_us: int = 0,
    max_bytes: int = MAX_BYTES,
    notes: list[str] | None = None,
) -> list[Series]:
    """Read the curves of a CSV file, once and in blocks.

    Args:
        zone: what times without a zone are in.
        start_us: where the count of times that are seconds from a start begins.
        notes: takes in words what was assumed and what was left out.

    Returns:
        one curve for each column of numbers that holds a sample. Device, title and unit come from the header; the
        device of a foreign file is its name. Rows are put in order; of rows with the same time the first one counts.

    Raises:
        ConfigError: names the file, the line and the column, and what was expected.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("is no file", file=str(path), expected="a CSV file")
        if status.st_size > max_bytes:
            text = f"is larger than {max_bytes} bytes"
            raise ConfigError(text, file=str(path), expected="a shorter range, or fewer curves")
        reader = _Reader(path, zone, start_us, [] if notes is None else notes)
        with path.open("rb") as raw:
            encoding = reader.encoding_of(raw.read(_SNIFF_BYTES))
            raw.seek(0)
            with io.TextIOWrapper(raw, encoding=encoding) as stream:
                reader.read(stream)
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", file=str(path)) from None
    except UnicodeError:
        raise ConfigError("is not text in one encoding", file=str(path), expected="UTF-8") from None
    return reader.result()


@dataclass(slots=True)
class _Column:
    """One column beside the time's. ``is_number`` is None until a cell holds something."""

    head: str
    is_number: bool | None = None
    parts: list[Values] = field(default_factory=list)


@dataclass(slots=True)
class _Block:
    """Rows of the file, by columns."""

    lines: Sequence[int]  # number of each row's line
    columns: list[list[str]]


class _Reader:
    """What has been read of one file."""

    def __init__(self, path: Path, zone: tzinfo, start_us: int, notes: list[str]) -> None:
        self._path = path
        self._zone = zone
        self._start_us = start_us
        self._notes = notes
        self._delimiter = ""
        self._heads: list[str] = []
        self._time_index = 0
        self._us_per = 0.0  # microseconds of one in a time that is a number; 0 for ISO 8601
        self._offset_us = 0
        self._mark = ""  # the decimal mark, once one was seen
        self._columns: dict[int, _Column] = {}
        self._times: list[Times] = []
        self._rows = 0

    def _error(self, text: str, line: int, column: str = "", expected: str = "") -> ConfigError:
        where = f"line {line}, column {column}" if column else f"line {line}"
        return ConfigError(text, file=str(self._path), key=where, expected=expected)

    def _say(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def encoding_of(self, start: bytes) -> str:
        """The encoding by the file's first bytes."""
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in start:
            raise ConfigError("is not text", file=str(self._path), expected="a CSV file")
        try:
            codecs.getincrementaldecoder("utf-8")().decode(start)
        except UnicodeDecodeError:
            self._say("The file is not UTF-8; it was read as Windows-1252.")
            return "cp1252"
        return "utf-8-sig"

    # ---- lines
    def read(self, stream: TextIO) -> None:
        number, rest = 1, ""
        while chunk := stream.read(_READ_CHARS):
            if len(chunk) < _READ_CHARS and chunk[-1] != "\n":  # the last line may stand without an end
                chunk += "\n"
            whole, newline, rest = (rest + chunk).rpartition("\n")
            if len(rest) > MAX_LINE:
                line = number + whole.count("\n") + len(newline)
                raise self._error(f"is longer than {MAX_LINE} characters", line, expected="lines of a table")
            if newline:
                lines = whole.split("\n")
                self._take(number, lines)
                number += len(lines)
        if rest:
            self._take(number, [rest])

    def _take(self, number: int, lines: list[str]) -> None:
        if not self._heads:
            taken = self._begin(number, lines)
            number, lines = number + taken, lines[taken:]
        block = self._block(number, lines)
        if not block.lines:
            return
        self._rows += len(block.lines)
        if self._rows * len(self._heads) > MAX_CELLS:
            raise self._error(
                f"is beyond {MAX_CELLS} cells", block.lines[-1], expected="a shorter range, or fewer columns"
            )
        if not self._times:
            self._judge_times(block)
        self._times.append(self._times_of(block))
        for index, column in self._columns.items():
            column.parts.append(self._values_of(column, block.columns[index], block.lines))

    def _begin(self, number: int, lines: list[str]) -> int:
        """Find delimiter and header; returns the lines that are no data."""
        rows = [index for index, line in enumerate(lines) if not _is_idle(line)]
        if not rows:
            return len(lines)
        head, row = lines[rows[0]], lines[rows[1]] if len(rows) > 1 else ""
        split = {mark: _cells(head, mark) for mark in _DELIMITERS}
        fitting = [mark for mark, heads in split.items() if len(heads) > 1 and _fits(_cells(row, mark), len(heads))]
        self._delimiter = fitting[0] if fitting else max(split, key=lambda mark: len(split[mark]))
        heads = [name.strip() for name in split[self._delimiter]]
        if not 1 < len(heads) <= MAX_COLUMNS:
            raise self._error(
                "holds one column" if len(heads) < 2 else f"holds more than {MAX_COLUMNS} columns",
                number + rows[0],
                expected="a column of times and at least one of values, parted by comma, semicolon or tab",
            )
        if {"device", "quantity", "value"} <= {name.lower() for name in heads}:
            raise self._error(
                "is a list with one sample a line", number + rows[0], expected="one column for each curve"
            )
        is_data = self._is_time(heads[0]) and all(_is_value(name) for name in heads[1:])
        if is_data:
            self._say("The file has no header; the curves are named by their columns.")
            heads = ["time", *(f"column {index}" for index in range(2, len(heads) + 1))]
        self._heads = [name or f"column {index}" for index, name in enumerate(heads, start=1)]
        known = [index for index, name in enumerate(self._heads) if _is_time_name(name)]
        self._time_index = known[0] if known else 0
        self._columns = {index: _Column(name) for index, name in enumerate(self._heads) if index != self._time_index}
        return rows[0] + (0 if is_data else 1)

    def _block(self, number: int, lines: list[str]) -> _Block:
        """Cells by columns. Every row has as many as the header, or that is the error."""
        width, mark = len(self._heads), self._delimiter
        joined = mark.join(lines)
        is_plain = '"' not in joined and "#" not in joined
        if lines and is_plain and {line.count(mark) for line in lines} == {width - 1}:
            cells = joined.split(mark)
            return _Block(range(number, number + len(lines)), [cells[index::width] for index in range(width)])
        numbers: list[int] = []
        rows: list[list[str]] = []
        for at, line in enumerate(lines, start=number):
            if _is_idle(line):
                continue
            try:
                row = next(csv.reader([line], delimiter=mark, strict=True))
            except csv.Error as exc:
                raise self._error(f"is not CSV: {exc}", at) from None
            if not _fits(row, width):
                raise self._error(f"holds {len(row)} cells", at, expected=f"{width}, as in the header")
            numbers.append(at)
            rows.append(row)
        return _Block(numbers, [[row[index] for row in rows] for index in range(width)])

    # ---- times
    def _is_time(self, cell: str) -> bool:
        return _number(self._dotted(cell)) is not None or _moment(cell) is not None

    def _dotted(self, cell: str) -> str:
        """A number with a decimal dot; where the delimiter is a comma, none stands in a number."""
        return cell if self._delimiter == "," else cell.replace(",", ".")

    def _judge_times(self, block: _Block) -> None:
        """Decide by the first row what the times are."""
        head, cell = self._heads[self._time_index], block.columns[self._time_index][0]
        first = _number(self._dotted(cell))
        if first is None:
            return
        stated = _time_unit(head)
        unit = stated or next(name for size, name in _BY_SIZE if abs(first) >= size)
        self._us_per = _US_PER[unit]
        if abs(first) * self._us_per / _US_PER["s"] < EPOCH_FROM_S:
            self._offset_us = self._start_us
            start = (EPOCH + self._start_us * MICROSECOND).isoformat().replace("+00:00", "Z")
            self._say(f"The times count from a start, in {unit}; the start was set to {start}.")
        else:
            self._say(f"The times are numbers; they were read as {unit} since 1970, UTC.")

    def _times_of(self, block: _Block) -> Times:
        cells = block.columns[self._time_index]
        return self._counted(cells, block.lines) if self._us_per else self._moments(cells, block.lines)

    def _counted(self, cells: list[str], lines: Sequence[int]) -> Times:
        try:
            counts = np.array([float(self._dotted(cell)) for cell in cells])
        except ValueError:
            counts = np.array([math.nan])
        us = counts * self._us_per + self._offset_us
        if "_" not in "".join(cells) and bool(((us >= _FIRST_US) & (us <= _LAST_US)).all()):
            return np.rint(us).astype(np.int64)
        for cell, line in zip(cells, lines, strict=True):
            count = _number(self._dotted(cell))
            if count is None or not _FIRST_US <= count * self._us_per + self._offset_us <= _LAST_US:
                raise self._time_error(cell, line, "a number like those above, up to the year 9999")
        raise AssertionError("every time is a number")

    def _moments(self, cells: list[str], lines: Sequence[int]) -> Times:
        if all(len(cell) == _OWN_TIME_CHARS and cell[-1] == "Z" for cell in cells):
            try:
                return np.array([cell[:-1] for cell in cells], "M8[us]").view(np.int64)
            except ValueError:
                pass  # found below, with its line
        out = np.empty(len(cells), np.int64)
        is_zoned = True
        for index, cell in enumerate(cells):
            moment = _moment(cell)
            if moment is None:
                raise self._time_error(cell, lines[index], _EXPECTED_TIME)
            if moment.tzinfo is None:
                is_zoned = False
                moment = moment.replace(tzinfo=self._zone)
            out[index] = to_us(moment)
        if not is_zoned:
            self._say(f"The times name no zone; they were read as {self._zone}.")
        return out

    def _time_error(self, cell: str, line: int, expected: str) -> ConfigError:
        return self._error(f"{cell[:40]!r} is no time", line, self._heads[self._time_index], expected)

    # ---- values
    def _values_of(self, column: _Column, cells: list[str], lines: Sequence[int]) -> Values:
        """float64[n], NaN where a cell is empty."""
        if column.is_number is None:
            self._judge(column, cells, lines)
        if not column.is_number:
            return np.full(len(cells), np.nan)
        if self._delimiter != ",":
            cells = self._with_dots(column, cells, lines)
        try:
            values = np.array([float(cell) if cell else math.nan for cell in cells])
            if "_" not in "".join(cells):  # float() takes 1_000
                return values
        except ValueError:
            pass
        values = np.full(len(cells), np.nan)
        for index, cell in enumerate(cells):
            value = _number(cell)
            if value is not None:
                values[index] = value
            elif cell.strip().lower() not in _MISSING:
                expected = "a number with a decimal dot" if self._delimiter == "," else "a number"
                raise self._error(f"{cell[:40]!r} is no number", lines[index], column.head, expected)
        return values

    def _judge(self, column: _Column, cells: list[str], lines: Sequence[int]) -> None:
        """A column is of numbers when its first cell that holds something begins like one and is no moment."""
        for cell, line in zip(cells, lines, strict=True):
            if cell.strip().lower() not in _MISSING:
                column.is_number = bool(re.match(r"\s*[+-]?[.,]?[0-9]", cell)) and (
                    _number(cell.replace(",", ".")) is not None or _moment(cell) is None
                )
                if not column.is_number:
                    self._say(f"The column {column.head} holds text ({cell[:40]!r} in line {line}); it was left out.")
                return

    def _with_dots(self, column: _Column, cells: list[str], lines: Sequence[int]) -> list[str]:
        """Decimal commas become dots. One file has one decimal mark, and none of thousands."""
        joined = "".join(cells)
        marks = [mark for mark in ",." if mark in joined]
        if len(marks) > 1 or (marks and self._mark not in ("", marks[0])):
            raise self._marks_error(column, cells, lines)
        if marks:
            self._mark = marks[0]
        return [self._dotted(cell) for cell in cells] if "," in joined else cells

    def _marks_error(self, column: _Column, cells: list[str], lines: Sequence[int]) -> ConfigError:
        expected = "one decimal mark in the whole file, and no mark of thousands"
        mark = self._mark
        for cell, line in zip(cells, lines, strict=True):
            found = [one for one in ",." if one in cell]
            if len(found) > 1:
                return self._error(f"{cell[:40]!r} has a comma and a dot", line, column.head, expected)
            mark = mark or "".join(found)
            if found and found != [mark]:
                other = "comma" if mark == "," else "dot"
                text = f"{cell[:40]!r} stands there, while a number before has a {other}"
                return self._error(text, line, column.head, expected)
        raise AssertionError("two marks were seen")

    # ---- result
    def result(self) -> list[Series]:
        times = np.concatenate(self._times) if self._times else np.empty(0, np.int64)
        is_later = times[1:] > times[:-1]
        if not is_later.all():
            self._say(
                f"{int((~is_later).sum())} rows are not later than the one before; the rows were put in order, and of "
                "rows with the same time the first one counts."
            )
        found: list[Series] = []
        titles: dict[tuple[str, str], set[str]] = {}  # by device and unit
        for column in self._columns.values():
            if not column.is_number:
                continue
            title, unit, device = self._named(column.head)
            taken = titles.setdefault((device, unit), set())
            title = _unused(title, taken)
            one = series_of(SeriesKey(device, title, unit), times, np.concatenate(column.parts), title)
            column.parts.clear()
            if len(one):
                taken.add(title)
                found.append(one)
        if not found:
            raise ConfigError("holds no sample", file=str(self._path), expected="a column of times and one of values")
        return found

    def _named(self, head: str) -> tuple[str, str, str]:
        """Title, unit and device of a column."""
        if re.match(r"''*[=+\-@]", head):
            head = head[1:]
        if own := _OWN_HEAD.fullmatch(head):
            return own["title"], own["unit"], own["device"]
        foreign = _FOREIGN_HEAD.fullmatch(head)
        if foreign and foreign["title"]:
            return foreign["title"], (foreign["unit"] or foreign["round"] or "").strip(), self._path.stem
        return head, "", self._path.stem


def _is_idle(line: str) -> bool:
    """A line that is no row: blank, a comment, or Excel's naming of the delimiter."""
    return not line.strip() or line.startswith("#") or line[:5].lower().lstrip('"').startswith("sep=")


def _cells(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def _fits(cells: list[str], width: int) -> bool:
    """Whether a row has as many cells as the header; a delimiter may stand at its end."""
    return len(cells) == width or (len(cells) == width + 1 and not cells[-1].strip())


def _is_time_name(head: str) -> bool:
    plain = re.sub(r"[\[(].*", "", head).strip().lower()
    return plain in _TIME_NAMES or plain.startswith(("time_", "timestamp_", "elapsed_", "epoch_"))


def _time_unit(head: str) -> str:
    """The unit that the name of a column of times states; "" where it states none."""
    stated = _TIME_UNIT.search(head)
    if stated is None:
        return ""
    return {"µs": "us", "μs": "us", "sec": "s"}.get(stated[1], stated[1])


def _number(cell: str) -> float | None:
    return float(cell) if _NUMBER.fullmatch(cell) else None


def _is_value(cell: str) -> bool:
    return cell.strip().lower() in _MISSING or _number(cell.replace(",", ".")) is not None


def _moment(cell: str) -> datetime | None:
    try:
        return datetime.fromisoformat(cell.strip())
    except ValueError:
        return None
