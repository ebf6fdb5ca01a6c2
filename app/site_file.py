"""A device tree as a file: TOML (everything) or CSV (a flat list of meters).

TOML: one ``[[device]]`` table per node with ``id``, ``name``, ``kind``, ``parent``, ``adapter``, ``serial``, ``model``,
``enabled`` and the sub-tables ``settings`` and ``attributes``; ``[[device.routes]]`` tables are the other ways to it,
each with ``name``, ``adapter``, ``parent``, ``settings`` and ``attributes``, and ``route`` names the way in use. CSV:
the same names as columns; a column ``settings.host`` or ``attributes.phases`` fills one entry of a sub-table. Secrets
never stand in a file: a value ``keyring:<name>`` names one in the OS keyring.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w

from app.errors import ConfigError, ParameterError
from app.model.command import ParamSpec, ParamType, check_params
from app.model.device import Device, NodeKind, Route
from app.ports import AdapterType

_FIELDS: Final = ("id", "name", "kind", "parent", "adapter", "serial", "model", "enabled", "route")
_TABLES: Final = ("settings", "attributes")
_ROUTE_FIELDS: Final = ("name", "adapter", "parent")
MAX_BYTES: Final = 64 << 20
MAX_DEPTH: Final = 32


def read_site(path: Path, adapter_types: Mapping[str, AdapterType]) -> list[Device]:
    """Read and check a site file; parents come before their children.

    Raises:
        ConfigError: names the file, the device and the key, and what was expected.
    """
    text = read_text(path, MAX_BYTES, "a site file")
    rows = _csv_rows(text, path) if path.suffix.lower() == ".csv" else _toml_rows(text, path)
    devices: dict[str, Device] = {}
    for position, (where, row) in enumerate(rows):
        device = _device(row, where, position, path, adapter_types)
        if device.id in devices:
            raise ConfigError(f"the id {device.id!r} is used twice", file=str(path), key=where)
        devices[device.id] = device
    for device in devices.values():
        for key, parent in (("parent", device.parent), *((f"{r.name}.parent", r.parent) for r in device.routes)):
            if parent and parent not in devices:
                raise ConfigError(
                    f"{parent!r} is not in the file", file=str(path), key=f"{device.id}.{key}",
                    expected="the id of another device of the file",
                )  # fmt: skip
    return _parents_first(devices, path)


def write_site(devices: Iterable[Device]) -> str:
    """The tree as TOML text; ``read_site`` of it gives equal devices."""
    tables = []
    for device in devices:
        table: dict[str, Any] = {"id": device.id, "name": device.name, "kind": device.kind.value}
        for name in ("parent", "adapter", "serial", "model", "route"):
            if getattr(device, name):
                table[name] = getattr(device, name)
        if not device.enabled:
            table["enabled"] = False
        table |= _sub_tables(device)
        if device.routes:
            table["routes"] = [
                {name: getattr(route, name) for name in _ROUTE_FIELDS if getattr(route, name)} | _sub_tables(route)
                for route in device.routes
            ]
        tables.append(table)
    return tomli_w.dumps({"device": tables}, multiline_strings=True)


def _sub_tables(of: Device | Route) -> dict[str, Any]:
    found = {}
    for name in _TABLES:
        values = {key: value for key, value in getattr(of, name).items() if value is not None}
        if values:
            found[name] = values
    return found


def read_text(path: Path, max_bytes: int, expected: str) -> str:
    """The UTF-8 text of a file, without its byte order mark.

    Raises:
        ConfigError: unreadable, too large (``expected`` says what should stand there), or not UTF-8.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise ConfigError(f"is larger than {max_bytes >> 20} MiB", file=str(path), expected=expected)
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", file=str(path)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"is not UTF-8 text (byte {exc.start})", file=str(path)) from None


def csv_lines(text: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line of a CSV table as "line 2" and its cells by column, stripped; the delimiter is , or ;.

    Raises:
        ConfigError: not CSV, a column that stands there twice, or a line with another number of cells than the header.
    """
    header = text.split("\n", 1)[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restkey="", strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"has the column {name!r} twice", file=str(path), key="line 1")
        for line in reader:
            where = f"line {reader.line_num}"
            if "" in line or None in line.values():
                raise ConfigError("has another number of cells than the header", file=str(path), key=where)
            yield where, dict(zip(names, (cell.strip() for cell in line.values()), strict=True))
    except csv.Error as exc:
        raise ConfigError(f"is not CSV: {exc}", file=str(path), key=f"line {reader.line_num}") from None


def _toml_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise ConfigError(f"is not TOML: {exc}", file=str(path)) from None
    tables = data.get("device")
    extra = sorted(set(data) - {"device"})
    if extra:
        raise ConfigError("is not known", file=str(path), key=extra[0], expected="only [[device]] tables")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError("holds no device", file=str(path), key="device", expected="one [[device]] table per node")
    return [(f"device {number}", table) for number, table in enumerate(tables, 1)]


def _csv_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    rows: list[tuple[str, dict[str, Any]]] = []
    for where, cells in csv_lines(text, path):
        row: dict[str, Any] = {}
        for name, cell in cells.items():
            if not cell:
                continue
            table, dot, key = name.partition(".")
            if dot and table in _TABLES:
                row.setdefault(table, {})[key] = cell
            else:
                row[name] = cell
        if "enabled" in row:
            row["enabled"] = _flag(row["enabled"], path, where)
        rows.append((where, row))
    if not rows:
        raise ConfigError("holds no device", file=str(path), expected="a header line and one line per device")
    return rows


def _flag(text: str, path: Path, where: str) -> bool:
    try:
        return bool(ParamSpec(name="enabled", title="enabled", type=ParamType.BOOLEAN).parse(text))
    except ParameterError as exc:
        raise ConfigError(str(exc), file=str(path), key=where) from None


def _device(
    row: dict[str, Any], where: str, position: int, path: Path, adapter_types: Mapping[str, AdapterType]
) -> Device:
    named = f"{where} ({row['id']})" if isinstance(row.get("id"), str) else where
    _check_keys(row, (*_FIELDS, *_TABLES, "routes"), named, path)
    _check_texts(row, ("id", "name", "parent", "adapter", "serial", "model", "route"), named, path)
    identity = row.get("id", "")
    if not identity or any(c.isspace() for c in identity):
        raise ConfigError("is missing or has blanks", file=str(path), key=f"{where}.id", expected="a short name")
    try:
        kind = NodeKind(row.get("kind", "meter"))
    except ValueError:
        raise ConfigError(
            f"{row['kind']!r} stands there", file=str(path), key=f"{named}.kind",
            expected=", ".join(kind.value for kind in NodeKind),
        ) from None  # fmt: skip
    adapter, settings, attributes = _connection(row, identity, named, path, adapter_types)
    routes = _routes(row, identity, named, path, adapter_types)
    enabled = row.get("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigError(f"{enabled!r} stands there", file=str(path), key=f"{named}.enabled", expected="true or false")
    return Device(
        id=identity,
        name=row.get("name") or identity,
        kind=kind,
        parent=row.get("parent", ""),
        adapter=adapter,
        serial=row.get("serial", ""),
        model=row.get("model", ""),
        settings=settings,
        attributes=attributes,
        enabled=enabled,
        position=position,
        route=row.get("route", ""),
        routes=routes,
    )


def _check_keys(row: dict[str, Any], known: tuple[str, ...], named: str, path: Path) -> None:
    for key in row:
        if key not in known:
            raise ConfigError(
                "is not known", file=str(path), key=f"{named}.{key}", expected=f"one of {', '.join(known)}"
            )


def _check_texts(row: dict[str, Any], names: tuple[str, ...], named: str, path: Path) -> None:
    for key in names:
        if not isinstance(row.get(key, ""), str):
            raise ConfigError(f"{row[key]!r} stands there", file=str(path), key=f"{named}.{key}", expected="text")


def _connection(
    row: dict[str, Any], identity: str, named: str, path: Path, adapter_types: Mapping[str, AdapterType]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Adapter, settings as its form has them, and attributes of a device or of one way to it."""
    adapter = row.get("adapter", "")
    settings, attributes = row.get("settings", {}), row.get("attributes", {})
    for key, value in (("settings", settings), ("attributes", attributes)):
        if not isinstance(value, dict):
            raise ConfigError(f"{value!r} stands there", file=str(path), key=f"{named}.{key}", expected="a table")
    if not adapter:
        return adapter, settings, attributes
    if adapter not in adapter_types:
        known = ", ".join(sorted(adapter_types))
        raise ConfigError(f"{adapter!r} stands there", file=str(path), key=f"{named}.adapter", expected=known)
    form = adapter_types[adapter].form()
    for spec in form:
        given = settings.get(spec.name)
        if spec.type is ParamType.SECRET and given and not str(given).startswith("keyring:"):
            raise ConfigError(
                "holds a secret in the open; put it into the keyring and write keyring:<name>",
                file=str(path), key=f"{named}.settings.{spec.name}",
            )  # fmt: skip
    try:
        checked = check_params(form, settings, f"The connection of {identity}")
    except ParameterError as exc:
        raise ConfigError(str(exc), file=str(path), key=f"{named}.settings.{exc.parameter}") from None
    return adapter, {key: checked[key] for key in settings}, attributes


def _routes(
    row: dict[str, Any], identity: str, named: str, path: Path, adapter_types: Mapping[str, AdapterType]
) -> tuple[Route, ...]:
    tables = row.get("routes", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(
            f"{tables!r} stands there", file=str(path), key=f"{named}.routes", expected="[[device.routes]] tables"
        )
    found: dict[str, Route] = {}
    for number, table in enumerate(tables, 1):
        where = f"{named}.routes {number}"
        _check_keys(table, (*_ROUTE_FIELDS, *_TABLES), where, path)
        _check_texts(table, _ROUTE_FIELDS, where, path)
        name = table.get("name", "")
        if not name or name in found or name == row.get("route", ""):
            raise ConfigError(
                f"{name!r} stands there", file=str(path), key=f"{where}.name", expected="a name of its own"
            )
        adapter, settings, attributes = _connection(table, identity, where, path, adapter_types)
        if not adapter:
            raise ConfigError("is missing", file=str(path), key=f"{where}.adapter", expected="how it is reached")
        found[name] = Route(
            name=name, adapter=adapter, parent=table.get("parent", ""), settings=settings, attributes=attributes
        )
    if bool(found) != bool(row.get("route", "")):
        raise ConfigError(
            "must stand together with routes", file=str(path), key=f"{named}.route",
            expected="the name of the way in use, and a [[device.routes]] table for each other way",
        )  # fmt: skip
    return tuple(found.values())


def _parents_first(devices: dict[str, Device], path: Path) -> list[Device]:
    ordered: dict[str, Device] = {}

    def place(device: Device, chain: tuple[str, ...]) -> None:
        if device.id in ordered:
            return
        if device.id in chain:
            raise ConfigError("is its own ancestor", file=str(path), key=f"{device.id}.parent")
        if len(chain) > MAX_DEPTH:
            raise ConfigError(f"stands more than {MAX_DEPTH} levels deep", file=str(path), key=f"{device.id}.parent")
        for parent in (device.parent, *(route.parent for route in device.routes)):
            if parent:
                place(devices[parent], (*chain, device.id))
        ordered[device.id] = device

    for device in devices.values():
        place(device, ())
    return list(ordered.values())
