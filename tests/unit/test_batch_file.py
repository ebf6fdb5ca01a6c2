"""Batches as a table: what each cell means, what is wrong with it, and that no file can do harm."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.batch_file import MAX_CELL, MAX_ROWS, Preview, preview, read_table
from app.errors import ConfigError, ParameterError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, check_params
from app.model.device import Device, NodeKind
from app.model.flow import BatchItem
from app.model.flow_parse import parse_flow

LIMIT = ParamSpec(name="limit", title="Power limit", type=ParamType.INTEGER, unit="W", minimum=0, maximum=1000)
FACTOR = ParamSpec(name="factor", title="Factor", type=ParamType.DECIMAL, required=False, default=Decimal(1))
PIN = ParamSpec(name="pin", title="PIN", type=ParamType.SECRET, max_bytes=8)
SPECS = (
    CommandSpec(name="SET_LIMIT", title="Set the limit", kind=CommandKind.WRITE, params=(LIMIT, FACTOR)),
    CommandSpec(name="UNLOCK", title="Unlock", kind=CommandKind.CONTROL, params=(PIN,)),
    CommandSpec(name="READ", title="Read it", kind=CommandKind.READ),
)
DEVICES = (
    Device(id="g1", name="Grid", kind=NodeKind.GRID),
    Device(id="m1", name="Kiosk", adapter="bench", serial="0012"),
    Device(id="m2", name="Mill", adapter="bench", serial="77"),
    Device(id="m3", name="Mill", adapter="other", serial="m1"),
)
MAY = datetime(2026, 5, 1)  # noqa: DTZ001 - a spreadsheet knows no zones


@dataclass
class Tree:
    """As much of a workbench as a preview asks."""

    def devices(self) -> tuple[Device, ...]:
        return DEVICES

    def commands(self, device: str) -> tuple[CommandSpec, ...]:
        return SPECS if device != "m3" else SPECS[2:]

    def unsupported(self, device: str) -> Mapping[str, str]:
        return {} if device != "m3" else {"SET_LIMIT": "This model has no relay."}

    def check_item(self, item: BatchItem) -> Mapping[str, Any]:
        spec = next(spec for spec in SPECS if spec.name == item.command)
        given = check_params(spec.params, item.params, spec.name)
        if given.get("limit") == 13:
            raise ParameterError("The limit must not be 13 W.", "limit")
        return given


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.csv"
    path.write_text(text, "utf-8")
    return path


def xlsx(tmp_path: Path, *rows: tuple[Any, ...], name: str = "list.xlsx") -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    path = tmp_path / name
    book.save(path)
    return path


def seen(path: Path, command: str = "") -> Preview:
    return preview(read_table(path), Tree(), command=command)


def faults(found: Preview) -> list[str]:
    return list(found.sentences())


# ---------------------------------------------------------------- what a line means


def test_devices_by_id_serial_and_name_with_parameters_by_name_and_title(tmp_path: Path) -> None:
    for header in ("device;limit;Factor", "Device;Power limit (W);factor", "DEVICE;limit [W];FACTOR"):
        found = seen(csv(tmp_path, f"{header}\nm1;200;\n77;0;1.5\n"), "SET_LIMIT")
        assert found.is_clean, faults(found)
        assert found.items == (
            BatchItem(device="m1", command="SET_LIMIT", params={"limit": 200}),
            BatchItem(device="m2", command="SET_LIMIT", params={"limit": 0, "factor": Decimal("1.5")}),
        )
    assert [line.device for line in seen(csv(tmp_path, "device\n0012\nkiosk\n"), "READ").lines] == ["m1", "m1"]


def test_a_command_of_its_own_in_each_line(tmp_path: Path) -> None:
    found = seen(csv(tmp_path, "device,command,limit\nm1,set the limit,5\nm2,READ,\n"))
    assert [(item.device, item.command, item.params) for item in found.items] == [
        ("m1", "SET_LIMIT", {"limit": 5}),
        ("m2", "READ", {}),
    ]
    assert [line.title for line in found.lines] == ["Set the limit", "Read it"]


def test_the_same_from_a_spreadsheet(tmp_path: Path) -> None:
    path = xlsx(tmp_path, ("Device", "Power limit", "factor"), (77, 200.0, 1.25), (None, None, None), ("m1", "7", None))
    found = seen(path, "SET_LIMIT")
    assert [item.params for item in found.items] == [{"limit": 200, "factor": Decimal("1.25")}, {"limit": 7}]
    assert [(line.where, line.device) for line in found.lines] == [("row 2", "m2"), ("row 4", "m1")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device,limit\nm9,5\n", "line 2, column device: 'm9' is no id, serial number or name"),
        ("device,limit\nMill,5\n", "'Mill' names several devices: m2, m3. Give its id."),
        ("device,limit\n,5\n", "line 2, column device: The device is missing."),
        ("device,limit\nm1,5\n0012,6\n", "line 3, column device: Kiosk stands in line 2 already"),
        ("device,limit\ng1,5\n", "Grid is a grid that no command reaches."),
        ("device,limit\nm1,\n", "line 2, column limit: Power limit (limit) is missing."),
        ("device\nm1\n", "line 2: Power limit (limit) is missing."),
        ("device,limit\nm1,2000\n", "must be at most 1000 W, not 2000"),
        ("device,limit\nm1,13\n", "line 2, column limit: The limit must not be 13 W."),
        ("device,limit,limmit\nm1,5,6\n", "column limmit: It is not a parameter of a command here; there are: factor,"),
        ("device,command,limit\nm2,READ,5\nm1,SET_LIMIT,5\n", "line 2, column limit: READ has no such parameter"),
        ("device,command,limit\nm3,set_limit,5\n", "Mill cannot be given 'set_limit'. This model has no relay."),
        ("device,command\nm1,FLY\n", "Kiosk cannot be given 'FLY'. There are: READ, SET_LIMIT, UNLOCK."),
    ],
)
def test_what_is_wrong_is_said_cell_by_cell(tmp_path: Path, text: str, said: str) -> None:
    found = seen(csv(tmp_path, text), "" if "command" in text.split("\n")[0] else "SET_LIMIT")
    assert said in "\n".join(faults(found))
    assert not found.is_clean
    assert len(found.items) < len(found.lines)


def test_without_a_command_the_columns_are_not_blamed(tmp_path: Path) -> None:
    assert faults(seen(csv(tmp_path, "device,limit\nm1,5\n"))) == [
        "line 2: The command is missing: choose one, or name it in a column command."
    ]


def test_a_good_line_beside_a_wrong_one_can_still_be_sent(tmp_path: Path) -> None:
    found = seen(csv(tmp_path, "device,limit\nm1,5\nm2,many\n"), "SET_LIMIT")
    assert ([item.device for item in found.items], found.wrong, found.is_clean) == (["m1"], 1, False)
    assert found.lines[1].fault("limit").startswith("Power limit (limit) must be a whole number")


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    found = seen(csv(tmp_path, "device,pin\nm1,4711\nm2,471147114711\n"), "UNLOCK")
    assert found.items[0].params == {"pin": "4711"}
    assert [line.cells["pin"] for line in found.lines] == ["(hidden)", "(hidden)"]
    assert "4711" not in "\n".join(faults(found))


def test_the_inputs_of_a_flow(tmp_path: Path) -> None:
    spec = parse_flow(
        {
            "name": "try", "version": 1, "title": "A try", "adapters": ["bench"],
            "inputs": [{"name": "limit", "title": "Limit", "type": "integer", "unit": "W"}],
            "steps": [{"name": "read", "title": "Read it", "command": "READ"}],
        },
        "test",
    )  # fmt: skip
    table = read_table(csv(tmp_path, "device,Limit (W)\nm1,5\nm3,6\n"))
    found = preview(table, Tree(), flow=spec)
    assert found.items == (BatchItem(device="m1", command="", params={"limit": 5}),)
    assert faults(found) == ["line 3, column device: Mill is reached by other; A try is for bench."]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"device\nm1\n", "ends with .txt (expected a file .csv or .xlsx)"),
        ("a.csv", b"meter\nm1\n", "has no column device"),
        ("a.csv", b"device,Limit,limit\nm1,1,2\n", "has the column 'limit' twice"),
        ("a.csv", b"device\n", "has no column device"),
        ("a.csv", b"\xff\xfe\n", "is not UTF-8 text"),
        ("a.xlsx", b"device\nm1\n", "is no usable XLSX file (BadZipFile)"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_too_many_lines_are_refused(tmp_path: Path) -> None:
    lines = "".join(f"m{n}\n" for n in range(MAX_ROWS + 1))
    with pytest.raises(ConfigError, match="at most 5000 lines"):
        read_table(csv(tmp_path, "device\n" + lines))
    with pytest.raises(ConfigError, match="at most 5000 lines"):
        read_table(xlsx(tmp_path, ("device",), *[(f"m{n}",) for n in range(MAX_ROWS + 1)]))
    found = read_table(csv(tmp_path, f"device,limit\nm1,{'9' * (MAX_CELL + 1)}\n"))
    assert found.faults[0][1:] == ("limit", f"is longer than {MAX_CELL} characters.")


def test_what_a_spreadsheet_cannot_keep_is_said(tmp_path: Path) -> None:
    path = xlsx(tmp_path, ("device", "limit"), (12345678901234567890, 1), ("m1", "#N/A"), ("m2", MAY))
    text = "\n".join(faults(seen(path, "SET_LIMIT")))
    assert "keeps 15 digits. Format the column as text." in text
    assert "is the error of a formula." in text
    assert "must be a whole number, not '2026-05-01T00:00:00'" in text


def packed(path: Path, parts: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_file_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    parts = unpacked(xlsx(tmp_path, ("device",), ("m1",)))
    big = packed(tmp_path / "big.xlsx", {**parts, "xl/media/a.bin": b"\0" * (65 << 20)})
    assert big.stat().st_size < 1 << 20
    with pytest.raises(ConfigError, match="unpacks to more than 64 MiB"):
        read_table(big)
    many = packed(tmp_path / "many.xlsx", {**parts, **{f"xl/p{n}.bin": b"" for n in range(1000)}})
    with pytest.raises(ConfigError, match="1000 parts"):
        read_table(many)
    sheet = parts["xl/worksheets/sheet1.xml"]
    entity = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb">]>' + sheet.split(b"?>")[-1]
    with pytest.raises(ConfigError, match="declares a document type"):
        read_table(packed(tmp_path / "entity.xlsx", {**parts, "xl/worksheets/sheet1.xml": entity}))


def test_other_sheets_are_named(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(("device",))
    book.active.append(("m1",))
    book.create_sheet("Notes")
    book.save(tmp_path / "two.xlsx")
    assert read_table(tmp_path / "two.xlsx").notes == ("The sheet Sheet was read; the other sheets were not.",)


# ---------------------------------------------------------------- whatever comes

_CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), _CELLS.filter(str.isprintable),
    st.datetimes(), st.sampled_from(["m1", "77", "Mill", "READ", "SET_LIMIT", "device", "limit", "5"]),
)  # fmt: skip
_FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def judged(path: Path) -> None:
    """A preview, or ConfigError in words; every line is either fine or says what is wrong."""
    try:
        found = seen(path, "SET_LIMIT")
    except ConfigError:
        return
    devices = [line.device for line in found.lines if line.item is not None]
    assert len(devices) == len(set(devices))
    for line in found.lines:
        assert (line.item is None) is bool(line.faults)
        if line.item is not None:
            Tree().check_item(line.item)
    assert found.is_clean is not bool(faults(found))


@_FUZZ
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_is_judged(tmp_path: Path, text: str) -> None:
    for made in (text, f"device,limit,command\n{text}"):
        judged(csv(tmp_path, made))


@_FUZZ
@given(rows=st.lists(st.lists(_ANY, max_size=4), max_size=5), header=st.booleans())
def test_any_cells_are_judged(tmp_path: Path, rows: list[list[Any]], header: bool) -> None:
    given = [("device", "limit", "command"), *map(tuple, rows)] if header else list(map(tuple, rows))
    judged(xlsx(tmp_path, *given))


@_FUZZ
@given(data=st.data())
def test_any_damage_is_judged(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of one part, or of the archive, are changed."""
    good = tmp_path / "good.xlsx"  # once: an archive holds the time of its making, and examples are tried again
    if not good.exists():
        xlsx(tmp_path, ("device", "limit"), ("m1", 5), ("m2", "x"), name=good.name)
    parts = unpacked(good)
    name = data.draw(st.sampled_from(sorted(parts)))
    whole = data.draw(st.booleans())
    body = bytearray(good.read_bytes() if whole else parts[name])
    for _change in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.xlsx"
    if whole:
        path.write_bytes(body)
    else:
        packed(path, {**parts, name: bytes(body)})
    judged(path)


def test_times_carry_their_zone(tmp_path: Path) -> None:
    """A spreadsheet has no zones, so a time in it is refused in words rather than guessed."""
    at = ParamSpec(name="at", title="At", type=ParamType.TIME)
    with pytest.raises(ParameterError, match="needs a time zone"):
        at.parse(read_table(xlsx(tmp_path, ("device", "at"), ("m1", MAY))).lines[0][1]["at"])
    assert at.parse("2026-05-01T00:00:00Z") == datetime(2026, 5, 1, tzinfo=UTC)


def test_memory_is_not_needed_for_what_a_sheet_claims(tmp_path: Path) -> None:
    """A dimension of a million rows and one cell far below are no table of a million lines."""
    parts = unpacked(xlsx(tmp_path, ("device",), ("m1",)))
    sheet = parts["xl/worksheets/sheet1.xml"].replace(b"A1:A2", b"A1:XFD1048576")
    far = b'<row r="1048576"><c r="A1048576" t="inlineStr"><is><t>m2</t></is></c></row></sheetData>'
    path = packed(tmp_path / "far.xlsx", {**parts, "xl/worksheets/sheet1.xml": sheet.replace(b"</sheetData>", far)})
    assert [cells["device"] for _where, cells in read_table(path).lines] == ["m1"]
    assert io.BytesIO(path.read_bytes()).getbuffer().nbytes < 1 << 20
