"""Batches as a table: one line for each device, from CSV or XLSX, with a preview of what each cell means.

Columns: ``device`` (its id, serial number or name), ``command`` where the lines differ (its name or title), and one for
each parameter by its name or title, with or without its unit in brackets; for a flow, its inputs. An empty cell stands
for the parameter's default. What is wrong is said cell by cell, and a line with a fault is never sent.
"""

from __future__ import annotations

import contextlib
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from app.errors import ConfigError, ParameterError, WorkbenchError
from app.model.command import CommandSpec, ParamSpec, ParamType
from app.model.device import Device
from app.model.flow import BatchItem
from app.model.flow_spec import FlowSpec
from app.site_file import csv_lines, read_text

DEVICE: Final = "device"
COMMAND: Final = "command"
ENDINGS: Final = (".csv", ".xlsx")
MAX_BYTES: Final = 8 << 20
MAX_UNPACKED: Final = 64 << 20  # bytes of all parts of an XLSX file
MAX_PARTS: Final = 1000
MAX_ROWS: Final = 5000
MAX_COLUMNS: Final = 60
MAX_CELL: Final = 4000  # characters
EXACT_DIGITS: Final = 15  # of a number in a spreadsheet; what is longer has lost its end
HIDDEN: Final = "(hidden)"
_TABLE: Final = "a header line with a column device, and one line for each device"


class Bench(Protocol):
    """What is asked of the workbench: the tree, what its devices can do, and whether a member may be given."""

    def devices(self) -> tuple[Device, ...]: ...

    def commands(self, device: str) -> tuple[CommandSpec, ...]: ...

    def unsupported(self, device: str) -> Mapping[str, str]: ...

    def check_item(self, item: BatchItem) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Table:
    """A file as it stands there: texts only. ``lines``: where each one stands ("line 2"), and its cells by column."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[tuple[str, Mapping[str, str]], ...]
    faults: tuple[tuple[int, str, str], ...] = ()  # index in ``lines``, column, what is wrong with the cell itself
    notes: tuple[str, ...] = ()  # what a person should know, in sentences


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one cell, as a sentence. ``column`` as it stands in the file, "" for the whole line."""

    column: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the preview. ``cells`` as they may be shown: secrets are hidden."""

    where: str
    cells: Mapping[str, str]
    device: str = ""  # its id; "" where there is none
    title: str = ""  # of the command
    item: BatchItem | None = None  # None while there is a fault; of a flow its command is ""
    faults: tuple[Fault, ...] = ()

    def fault(self, column: str) -> str:
        """The sentences about one cell; "" where it is fine."""
        return " ".join(fault.text for fault in self.faults if fault.column == column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What would become of a table. ``faults``: of columns, which concern every line."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[BatchItem, ...]:
        """The members to be; none while a column is wrong."""
        return () if self.faults else tuple(line.item for line in self.lines if line.item is not None)

    @property
    def wrong(self) -> int:
        """Lines with a fault."""
        return sum(bool(line.faults) for line in self.lines)

    @property
    def is_clean(self) -> bool:
        return not self.faults and not self.wrong

    def sentences(self) -> Iterator[str]:
        """Every fault with its place."""
        for fault in self.faults:
            yield f"column {fault.column}: {fault.text}" if fault.column else fault.text
        for line in self.lines:
            for fault in line.faults:
                yield f"{line.where}{f', column {fault.column}' if fault.column else ''}: {fault.text}"


# ---------------------------------------------------------------- reading


def read_table(path: Path) -> Table:
    """Read a file whole.

    Raises:
        ConfigError: it cannot be read, is neither CSV nor XLSX, too large, or no table with a column device.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"ends with {ending or 'nothing'}", file=str(path), expected="a file .csv or .xlsx")
    table = _xlsx(path) if ending == ".xlsx" else _csv(path)
    lowered = [column.casefold() for column in table.columns]
    for column in lowered:
        if lowered.count(column) > 1:
            raise ConfigError(f"has the column {column!r} twice", file=str(path), key="line 1")
    if DEVICE not in lowered:
        raise ConfigError("has no column device", file=str(path), key="line 1", expected=_TABLE)
    if len(table.columns) > MAX_COLUMNS or len(table.lines) > MAX_ROWS:
        size = f"{MAX_ROWS} lines and {MAX_COLUMNS} columns"
        raise ConfigError("is too long or too wide", file=str(path), expected=f"at most {size}")
    if not table.lines:
        raise ConfigError("holds no device", file=str(path), expected=_TABLE)
    return table


def _csv(path: Path) -> Table:
    lines: list[tuple[str, Mapping[str, str]]] = []
    columns: tuple[str, ...] = ()
    for where, cells in csv_lines(read_text(path, MAX_BYTES, "a list of devices"), path):
        columns = tuple(cells)
        if any(cells.values()):
            lines.append((where, cells))
        if len(lines) > MAX_ROWS:
            break
    return _checked(path, columns, lines, [])


def _xlsx(path: Path) -> Table:
    import openpyxl  # half a second that only a spreadsheet is worth

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"is larger than {MAX_BYTES >> 20} MiB", file=str(path), expected="a list of devices")
        data = io.BytesIO(path.read_bytes())  # openpyxl would leave a damaged file open
        _refuse_bomb(path, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions, which are not read
            book = openpyxl.load_workbook(data, read_only=True, data_only=True, keep_links=False)
            with contextlib.closing(book):
                return _sheet(path, book)
    except ConfigError:
        raise
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror or 'it is damaged'}", file=str(path)) from None
    except Exception as exc:  # noqa: BLE001 - openpyxl raises whatever a damaged part of a file leads it to
        raise ConfigError(f"is no usable XLSX file ({type(exc).__name__})", file=str(path), expected=_TABLE) from None


def _refuse_bomb(path: Path, data: io.BytesIO) -> None:
    """Raises ConfigError: it would unpack to more than a list can hold, or declares entities."""
    with zipfile.ZipFile(data) as archive:
        parts = archive.infolist()
        if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_UNPACKED:
            raise ConfigError(
                f"unpacks to more than {MAX_UNPACKED >> 20} MiB or {MAX_PARTS} parts", file=str(path), expected=_TABLE
            )
        for part in parts:
            if part.filename.lower().endswith((".xml", ".rels")):
                with archive.open(part) as opened:
                    if b"<!DOCTYPE" in opened.read(4096).replace(b"\0", b"").upper():
                        raise ConfigError("declares a document type, which no spreadsheet does", file=str(path))


def _sheet(path: Path, book: Any) -> Table:
    sheets = book.worksheets
    if not sheets:
        raise ConfigError("holds no sheet", file=str(path), expected=_TABLE)
    sheet = book.active if book.active in sheets else sheets[0]
    sheet.reset_dimensions()  # what a file says of its size is not believed
    notes = [f"The sheet {sheet.title} was read; the other sheets were not."] if len(sheets) > 1 else []
    rows = sheet.iter_rows(max_row=MAX_ROWS + 2, max_col=MAX_COLUMNS + 1, values_only=True)
    columns: tuple[str, ...] = ()
    lines: list[tuple[str, Mapping[str, str]]] = []
    faults: list[tuple[int, str, str]] = []
    for number, row in enumerate(rows, 1):
        cells = [_text(value) for value in row]
        if not any(text for text, _wrong in cells):
            continue
        if not columns:
            names = [text for text, _wrong in cells]
            while names and not names[-1]:
                names.pop()
            if "" in names:
                raise ConfigError("has a column without a name", file=str(path), key=f"row {number}", expected=_TABLE)
            columns = tuple(names)
            continue
        if any(text for text, _wrong in cells[len(columns) :]):
            raise ConfigError("has a cell outside its columns", file=str(path), key=f"row {number}")
        cells += [("", "")] * (len(columns) - len(cells))
        faults += [(len(lines), column, wrong) for column, (_t, wrong) in zip(columns, cells, strict=False) if wrong]
        lines.append((f"row {number}", {column: text for column, (text, _w) in zip(columns, cells, strict=False)}))
    return _checked(path, columns, lines, notes, faults)


def _text(value: Any) -> tuple[str, str]:
    """A cell of a spreadsheet as text, and what is wrong with it."""
    match value:
        case None:
            return "", ""
        case bool():
            return ("true" if value else "false"), ""
        case int() | float():
            whole = value == value and abs(value) != float("inf") and value == int(value)
            text = str(int(value)) if whole else repr(value)
            if len(text.lstrip("-")) > EXACT_DIGITS and whole:
                return text, "is a number of which a spreadsheet keeps 15 digits. Format the column as text."
            return text, ""
        case datetime() | date() | time():
            return value.isoformat(), ""
        case timedelta():
            return f"{value.total_seconds():g}", ""
        case str():
            text = value.strip()
            return text, "is the error of a formula." if text in _ERRORS else ""
        case _:
            return "", "is of a kind that is not read."


_ERRORS: Final = frozenset({"#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#SPILL!", "#CALC!"})


def _checked(
    path: Path,
    columns: tuple[str, ...],
    lines: Sequence[tuple[str, Mapping[str, str]]],
    notes: Sequence[str],
    faults: Sequence[tuple[int, str, str]] = (),
) -> Table:
    found = list(faults)
    for index, (_where, cells) in enumerate(lines):
        for column, text in cells.items():
            if len(text) > MAX_CELL:
                found.append((index, column, f"is longer than {MAX_CELL} characters."))
    return Table(path, columns, tuple(lines), tuple(found), tuple(notes))


def with_values(table: Table, values: Mapping[str, str]) -> Table:
    """The table with a value for every line where it has no such column, or an empty cell in it."""
    named = {column.casefold(): column for column in table.columns}
    added = tuple(name for name in values if name.casefold() not in named)
    filled = {named.get(name.casefold(), name): value for name, value in values.items()}
    lines = tuple(
        (where, {**cells, **{column: cells.get(column) or value for column, value in filled.items()}})
        for where, cells in table.lines
    )
    return replace(table, columns=(*table.columns, *added), lines=lines)


# ---------------------------------------------------------------- meaning


def preview(table: Table, bench: Bench, *, command: str = "", flow: FlowSpec | None = None) -> Preview:
    """What each line of a table means in a workspace. Nothing is sent, and nothing is kept.

    Args:
        command: for tables without a column command: its name or title.
        flow: the flow to run instead; its inputs stand in the columns.
    """
    return _Reading(table, bench, command, flow).preview()


class Names:
    """The devices of a tree by what a list may call them: the id first, then the serial number, then the name."""

    def __init__(self, devices: Sequence[Device]) -> None:
        keys: tuple[Callable[[Device], str], ...] = (
            lambda node: node.id,
            lambda node: node.serial,
            lambda node: node.name,
            lambda node: node.name.casefold(),
        )
        self._maps: list[dict[str, list[Device]]] = []
        for key in keys:
            found: dict[str, list[Device]] = {}
            for node in devices:
                if key(node):
                    found.setdefault(key(node), []).append(node)
            self._maps.append(found)

    def find(self, text: str) -> Device:
        """The device that a text names.

        Raises:
            ParameterError: there is none, or several have that serial number or name.
        """
        for known, wanted in zip(self._maps, (text, text, text, text.casefold()), strict=True):
            found = known.get(wanted, [])
            if len(found) > 1:
                listed = ", ".join(node.id for node in found[:5])
                raise ParameterError(f"{text!r} names several devices: {listed}. Give its id.", DEVICE)
            if found:
                return found[0]
        raise ParameterError(f"{text!r} is no id, serial number or name of a device in this workspace.", DEVICE)


def devices_of(table: Table, devices: Sequence[Device]) -> list[Device]:
    """Those devices of the tree that a table names, each once."""
    names = Names(devices)
    column = next(column for column in table.columns if column.casefold() == DEVICE)
    found: dict[str, Device] = {}
    for _where, cells in table.lines:
        with contextlib.suppress(ParameterError):
            node = names.find(cells[column])
            found[node.id] = node
    return list(found.values())


class _Reading:
    """One table and one workspace."""

    def __init__(self, table: Table, bench: Bench, command: str, flow: FlowSpec | None) -> None:
        self._table = table
        self._bench = bench
        self._command = command
        self._flow = flow
        self._names = Names(bench.devices())
        self._places: dict[str, str] = {}  # device -> where it stands
        self._used: set[str] = set()  # columns that mean something somewhere
        self._specs: dict[str, ParamSpec] = {}  # parameters of the commands that occur
        self._is_known = flow is not None  # what the columns may be: some line has a command

    def preview(self) -> Preview:
        table = self._table
        named = {column.casefold(): column for column in table.columns}
        broken: dict[int, list[Fault]] = {}
        for index, column, wrong in table.faults:
            broken.setdefault(index, []).append(Fault(column, f"{_shown(table.lines[index][1][column])} {wrong}"))
        lines = [
            self._line(where, cells, named, broken.get(index, []))
            for index, (where, cells) in enumerate(table.lines)
        ]
        faults = self._unknown_columns(named) if self._is_known else []
        return Preview(columns=table.columns, lines=tuple(lines), faults=tuple(faults), notes=table.notes)

    def _unknown_columns(self, named: Mapping[str, str]) -> list[Fault]:
        own = {DEVICE} if self._flow is not None else {DEVICE, COMMAND}
        known = ", ".join(sorted(self._specs)) or "none"
        what = f"an input of {self._flow.title}" if self._flow is not None else "a parameter of a command here"
        return [
            Fault(column, f"It is not {what}; there are: {known}.")
            for key, column in named.items()
            if key not in own and column not in self._used
        ]

    def _line(self, where: str, cells: Mapping[str, str], named: Mapping[str, str], broken: list[Fault]) -> Line:
        faults = list(broken)
        node = self._device(where, cells[named[DEVICE]], named[DEVICE], faults)
        if self._flow is not None:
            params = self._flow.inputs
            title = self._flow.title
            command = ""
            if node is not None and node.adapter not in self._flow.adapters:
                made_for = ", ".join(self._flow.adapters)
                text = f"{node.name} is reached by {node.adapter or 'nothing'}; {title} is for {made_for}."
                faults.append(Fault(named[DEVICE], text))
        else:
            spec = self._spec(node, cells, named, faults) if node is not None else None
            self._is_known |= spec is not None
            params, title, command = (spec.params, spec.title, spec.name) if spec is not None else ((), "", "")
        values, secret = self._values(cells, params, named, faults, command or title)
        if node is not None and (command or self._flow is not None) and not faults:
            item = BatchItem(device=node.id, command=command, params=values)
            try:
                if self._flow is None:
                    self._bench.check_item(item)
            except ParameterError as exc:
                faults.append(Fault(self._column_of(exc.parameter, params, named), str(exc)))
            except WorkbenchError as exc:
                faults.append(Fault("", str(exc)))
        else:
            item = None
        shown = {column: HIDDEN if column in secret and text else text for column, text in cells.items()}
        return Line(
            where=where,
            cells=shown,
            device=node.id if node is not None else "",
            title=title,
            item=item if not faults else None,
            faults=tuple(faults),
        )

    def _device(self, where: str, text: str, column: str, faults: list[Fault]) -> Device | None:
        if not text:
            faults.append(Fault(column, "The device is missing."))
            return None
        try:
            node = self._names.find(text)
        except ParameterError as exc:
            faults.append(Fault(column, str(exc)))
            return None
        earlier = self._places.setdefault(node.id, where)
        if earlier != where:
            faults.append(Fault(column, f"{node.name} stands in {earlier} already; one line for each device."))
        if not node.adapter:
            faults.append(Fault(column, f"{node.name} is a {node.kind} that no command reaches."))
        return node

    def _spec(
        self, node: Device, cells: Mapping[str, str], named: Mapping[str, str], faults: list[Fault]
    ) -> CommandSpec | None:
        column = named.get(COMMAND, "")
        text = (cells[column] if column else "") or self._command
        if not text:
            faults.append(Fault(column, "The command is missing: choose one, or name it in a column command."))
            return None
        specs = self._bench.commands(node.id)
        wanted = text.casefold()
        found = next((spec for spec in specs if wanted in (spec.name.casefold(), spec.title.casefold())), None)
        if found is None:
            reason = self._bench.unsupported(node.id).get(text.upper(), "")
            listed = ", ".join(sorted(spec.name for spec in specs)) or "none"
            why = reason or f"There are: {listed}."
            faults.append(Fault(column, f"{node.name} cannot be given {text!r}. {why}"))
        return found

    def _values(
        self,
        cells: Mapping[str, str],
        params: Sequence[ParamSpec],
        named: Mapping[str, str],
        faults: list[Fault],
        what: str,
    ) -> tuple[dict[str, Any], set[str]]:
        """The parameters that a line gives, and its columns with secrets."""
        values: dict[str, Any] = {}
        secret: set[str] = set()
        own: set[str] = set()
        for param in params:
            self._specs.setdefault(param.name, param)
            column = _column(param, named)
            own.add(column)
            self._used.add(column)
            if param.type is ParamType.SECRET:
                secret.add(column)
            text = cells.get(column, "") if column else ""
            try:
                value = param.parse(text or None)
            except ParameterError as exc:
                said = str(exc).replace(text, HIDDEN) if text and column in secret else str(exc)
                faults.append(Fault(column, said))
            else:
                if text:
                    values[param.name] = value
        for key, column in named.items():
            if what and key not in (DEVICE, COMMAND) and column not in own and cells[column]:
                faults.append(Fault(column, f"{what} has no such parameter; leave the cell empty."))
        return values, secret

    def _column_of(self, name: str, params: Sequence[ParamSpec], named: Mapping[str, str]) -> str:
        """The column that an error of the core is about; "" for the whole line."""
        param = next((param for param in params if param.name == name), None)
        return _column(param, named) if param is not None else ""


def column_of(param: ParamSpec, columns: Sequence[str]) -> str:
    """The column of a table that stands for a parameter; "" for none."""
    return _column(param, {column.casefold(): column for column in columns})


def _column(param: ParamSpec, named: Mapping[str, str]) -> str:
    """As ``column_of``, by columns without their case."""
    names = [param.name, param.title]
    if param.unit:
        names += [f"{name} {left}{param.unit}{right}" for name in names for left, right in ("()", "[]")]
    return next((named[name.casefold()] for name in names if name.casefold() in named), "")


def _shown(text: str) -> str:
    return repr(text[:20]) if text else "It"
