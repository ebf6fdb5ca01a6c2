"""Files of orders: what is right is read exactly, and what is wrong is named by line and column."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from app import order_file
from app.errors import ConfigError
from app.model.flow import NewOrder
from app.order_file import read_orders

D = Decimal
HEAD = "reference,device,amount,kwh,tariff,customer\n"


def write(tmp_path: Path, data: str | bytes) -> Path:
    path = tmp_path / "orders.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_the_ways_to_pay(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "r-1,m1,1000,,270,Shop 4\nr-2,m1,,2.5,,\nr-3,m1,500,,,\n")
    assert read_orders(path) == [
        NewOrder(reference="r-1", device="m1", amount=D(1000), tariff=D(270), customer="Shop 4"),
        NewOrder(reference="r-2", device="m1", kwh=D("2.5")),
        NewOrder(reference="r-3", device="m1", amount=D(500)),
    ]


@pytest.mark.parametrize(
    "data",
    [
        "reference;device;kwh\nr-1;m1;2.5\n",
        b"\xef\xbb\xbfreference,device,kwh\r\nr-1,m1,2.5\r\n",
        " kwh , device,reference\n\n 2.5 ,m1, r-1 \n\n",
        'reference,device,kwh\n"r-1","m1","2.5"',
    ],
)
def test_forms_of_the_same_file(tmp_path: Path, data: str | bytes) -> None:
    assert read_orders(write(tmp_path, data)) == [NewOrder(reference="r-1", device="m1", kwh=D("2.5"))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no order"),
        (HEAD, "holds no order"),
        ("reference,device,kwh,colour\nr,m1,1,red\n", "line 1, column colour: is not known .*one of reference"),
        ("device,kwh\nm1,1\n", "line 1, column reference: is missing"),
        ("reference,kwh\nr,1\n", "line 1, column device: is missing"),
        ("reference,device,kwh,kwh\nr,m1,1,2\n", "line 1: has the column 'kwh' twice"),
        (HEAD + "r,m1,1\n", "line 2: has another number of cells"),
        (HEAD + "r,m1,,1,,,x\n", "line 2: has another number of cells"),
        (HEAD + ",m1,,1,,\n", "line 2, column reference: is missing"),
        (HEAD + "r,,,1,,\n", "line 2, column device: is missing"),
        (HEAD + "r,m 1,,1,,\n", "line 2, column device: .*without blanks"),
        (HEAD + "r\x07,m1,,1,,\n", "line 2, column reference: .*printable"),
        (HEAD + f"{'r' * 101},m1,,1,,\n", "line 2, column reference: .*at most 100"),
        (HEAD + "r,m1,,,,\n", "line 2, column kwh: is missing .*either kwh, or amount"),
        (HEAD + "r,m1,,,270,\n", "line 2, column amount: is missing"),
        (HEAD + "r,m1,1000,3.8,,\n", "line 2, column amount: 1000 stands there beside kwh"),
        (HEAD + "r,m1,,3.8,270,\n", "line 2, column tariff: 270 stands there beside kwh"),
        (HEAD + "r,m1,,3.85,,\n", "line 2, column kwh: 3.85 stands there .*steps of 0.1 kWh"),
        (HEAD + "r,m1,,0,,\n", "line 2, column kwh: '0' stands there .*above 0"),
        (HEAD + "r,m1,,-1,,\n", "line 2, column kwh: '-1' stands there"),
        (HEAD + "r,m1,,1e3,,\n", "line 2, column kwh: '1e3' stands there"),
        (HEAD + "r,m1,,NaN,,\n", "line 2, column kwh: 'NaN' stands there"),
        (HEAD + 'r,m1,,"1,5",,\n', "line 2, column kwh: '1,5' stands there .*decimal point"),
        (HEAD + "r,m1,1000,,0,\n", "line 2, column tariff: '0' stands there"),
        (HEAD + "r,m1,,1,,\ns,m1,,1,,\nr,m2,,1,,\n", "line 4, column reference: 'r' stands in line 2 already"),
        (HEAD + "old,m1,,1,,\n", "line 2, column reference: there is an order 'old' already"),
        (HEAD + 'r,m1,,1,,"open\n', "is not CSV"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_orders(write(tmp_path, text), {"old"})
    assert "orders.csv" in str(caught.value)


def test_not_text_too_large_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_orders(write(tmp_path, b"reference\xff"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_orders(tmp_path / "none.csv")
    monkeypatch.setattr(order_file, "MAX_BYTES", 1 << 20)
    with pytest.raises(ConfigError, match=r"larger than 1 MiB.*a file of orders"):
        read_orders(write(tmp_path, "x" * ((1 << 20) + 1)))
