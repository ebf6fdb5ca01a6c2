"""Orders as a CSV file: one line for each paid top-up.

Columns: ``reference`` (the customer's, unique), ``device`` (its id in the tree), and either ``kwh`` or ``amount``, with
its ``tariff`` unless the tree's counts; ``customer`` where it helps. UTF-8, with or without a byte order mark; the
delimiter is , or ;. Nothing is taken over from a file with a fault.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

from app.errors import ConfigError
from app.model.flow import NewOrder
from app.pipeline.orders import STEPS_PER_KWH
from app.site_file import csv_lines, read_text

COLUMNS: Final = ("reference", "device", "amount", "kwh", "tariff", "customer")
REQUIRED: Final = ("reference", "device")
MAX_BYTES: Final = 8 << 20
MAX_TEXT: Final = 100  # characters of a reference, device or customer

_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")


def read_orders(path: Path, known: Collection[str] = ()) -> list[NewOrder]:
    """Read and check a file of orders, in the order of its lines.

    Args:
        known: references of orders that exist already.

    Raises:
        ConfigError: names the file, the line and the column, and what was expected.
    """
    rows: list[NewOrder] = []
    lines: dict[str, str] = {}
    for where, cells in csv_lines(read_text(path, MAX_BYTES, "a file of orders"), path):
        if not rows:
            _check_header(cells, path)
        row = _row(cells, where, path)
        if row.reference in lines:
            raise _error(f"{row.reference!r} stands in {lines[row.reference]} already", path, where, "reference",
                         "a reference of its own for each order")  # fmt: skip
        if row.reference in known:
            raise _error(f"there is an order {row.reference!r} already", path, where, "reference",
                         "a reference that no order has")  # fmt: skip
        lines[row.reference] = where
        rows.append(row)
    if not rows:
        raise ConfigError("holds no order", file=str(path), expected="a header line and one line per order")
    return rows


def _check_header(cells: Mapping[str, str], path: Path) -> None:
    for name in cells:
        if name not in COLUMNS:
            raise _error("is not known", path, "line 1", name, f"one of {', '.join(COLUMNS)}")
    for name in REQUIRED:
        if name not in cells:
            raise _error("is missing", path, "line 1", name, "columns reference, device, and kwh or amount")


def _row(cells: Mapping[str, str], where: str, path: Path) -> NewOrder:
    reference = _text(cells, "reference", where, path)
    device = _text(cells, "device", where, path)
    customer = _text(cells, "customer", where, path)
    amount, tariff, kwh = (_number(cells, name, where, path) for name in ("amount", "tariff", "kwh"))
    either = "either kwh, or amount with or without tariff"
    if kwh is None and amount is None:
        raise _error("is missing", path, where, "kwh" if tariff is None else "amount", either)
    if kwh is not None:
        for name, value in (("amount", amount), ("tariff", tariff)):
            if value is not None:
                raise _error(f"{value} stands there beside kwh", path, where, name, either)
        if kwh * STEPS_PER_KWH % 1:
            raise _error(f"{kwh} stands there", path, where, "kwh", "energy in steps of 0.1 kWh")
    return NewOrder(reference=reference, device=device, kwh=kwh, amount=amount, tariff=tariff, customer=customer)


def _text(cells: Mapping[str, str], name: str, where: str, path: Path) -> str:
    text = cells.get(name, "")
    if not text and name in REQUIRED:
        raise _error("is missing", path, where, name, "text")
    if len(text) > MAX_TEXT or not text.isprintable():
        raise _error(f"{text[:20]!r} stands there", path, where, name, f"at most {MAX_TEXT} printable characters")
    if name == "device" and " " in text:
        raise _error(f"{text!r} stands there", path, where, name, "the id of a device, without blanks")
    return text


def _number(cells: Mapping[str, str], name: str, where: str, path: Path) -> Decimal | None:
    text = cells.get(name, "")
    if not text:
        return None
    number = Decimal(text) if _NUMBER.fullmatch(text) else None
    if not number:
        expected = "a number above 0 with a decimal point and without signs or blanks, such as 3.8"
        raise _error(f"{text[:20]!r} stands there", path, where, name, expected)
    return number


def _error(text: str, path: Path, where: str, column: str, expected: str) -> ConfigError:
    return ConfigError(text, file=str(path), key=f"{where}, column {column}", expected=expected)
