"""Site files: what is written is read back, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.adapters.registry import Registry
from app.errors import ConfigError
from app.model.device import Device, NodeKind
from app.site_file import read_site, write_site

GOOD = """
[[device]]
id = "park"
name = "Park"
kind = "site"

[[device]]
id = "lem-1"
name = "LEM 1"
parent = "park"
adapter = "lem-dcbm"
serial = "12024072805"
[device.settings]
host = "192.168.1.2"
port = 80
"""


TWO_WAYS = """
[[device]]
id = "a"
name = "A"
adapter = "lem-dcbm"
route = "directly"
settings = {host = "192.168.1.2", port = 80}
attributes = {phases = 3}
[[device.routes]]
name = "by cable"
adapter = "iec62056"
settings = {address = "socket://127.0.0.1:4000"}
attributes = {serial_word = "x"}
"""


def read(tmp_path: Path, text: str, name: str = "site.toml") -> list[Device]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_site(path, Registry())


def test_read_write_read(tmp_path: Path) -> None:
    devices = read(tmp_path, GOOD)
    assert [d.id for d in devices] == ["park", "lem-1"]
    assert devices[0].kind is NodeKind.SITE
    assert devices[1].settings == {"host": "192.168.1.2", "port": 80}
    assert read(tmp_path, write_site(devices), "again.toml") == devices


def test_the_ways_to_a_device_are_written_and_read(tmp_path: Path) -> None:
    (device,) = read(tmp_path, TWO_WAYS)
    assert device.ways == ("directly", "by cable")
    shelf = '[[device]]\nid="shelf"\nkind="site"\n'
    both = read(tmp_path, TWO_WAYS.replace('name = "by cable"', 'name = "by cable"\nparent = "shelf"') + shelf)
    assert [one.id for one in both] == ["shelf", "a"]
    assert device.routes[0].settings == {"address": "socket://127.0.0.1:4000"}
    assert read(tmp_path, write_site([device]), "again.toml") == [device]


def test_csv_with_sub_tables_and_semicolons(tmp_path: Path) -> None:
    text = "id;name;adapter;settings.host;settings.port;enabled\nlem-1;LEM 1;lem-dcbm;10.0.0.2;8080;no\n"
    (device,) = read(tmp_path, text, "site.csv")
    assert (device.settings, device.enabled) == ({"host": "10.0.0.2", "port": 8080}, False)


def test_children_may_stand_before_their_parents(tmp_path: Path) -> None:
    text = '[[device]]\nid="b"\nparent="a"\n[[device]]\nid="a"\nkind="site"\n'
    assert [d.id for d in read(tmp_path, text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no device"),
        ("not toml at all [", "is not TOML"),
        ("x = 1\n", "is not known"),
        ('[[device]]\nname="a"\n', "id"),
        ('[[device]]\nid="a b"\n', "has blanks"),
        ('[[device]]\nid="a"\n[[device]]\nid="a"\n', "used twice"),
        ('[[device]]\nid="a"\nparent="zz"\n', "not in the file"),
        ('[[device]]\nid="a"\nparent="b"\n[[device]]\nid="b"\nparent="a"\n', "own ancestor"),
        ('[[device]]\nid="a"\nkind="toaster"\n', "site, grid, gateway, meter"),
        ('[[device]]\nid="a"\nadapter="nope"\n', "lem-dcbm"),
        ('[[device]]\nid="a"\ncolour="red"\n', "a.*colour"),
        ('[[device]]\nid="a"\nenabled="maybe"\n', "true or false"),
        ('[[device]]\nid="a"\nadapter="lem-dcbm"\n[device.settings]\nhost="h"\nport=70000\n', "at most 65535"),
        ('[[device]]\nid="a"\nadapter="lem-dcbm"\n[device.settings]\nport=80\n', "host"),
        ('[[device]]\nid="a"\nadapter="lem-dcbm"\n[device.settings]\nhost="h"\nvolts=1\n', "volts"),
        ('[[device]]\nid="a"\nroute="directly"\n', "a.*route.*together"),
        ('[[device]]\nid="a"\nroutes=5\n', "device.routes"),
        (TWO_WAYS.replace('name = "by cable"', 'name = "directly"'), "routes 1.name"),
        (TWO_WAYS.replace('name = "by cable"', 'name = "by cable"\nkind = "meter"'), "routes 1.kind"),
        (TWO_WAYS.replace('name = "by cable"', 'name = "by cable"\nparent = "zz"'), "by cable.parent"),
        (TWO_WAYS.replace('adapter = "iec62056"', ""), "routes 1.adapter"),
        (TWO_WAYS.replace("address", "adress"), "adress"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path, text)
    assert "site.toml" in str(caught.value)


@pytest.mark.parametrize("text", ["id,name\nlem-1\n", 'id,name\n"lem-1,x\n', "id,name\n", "id,name\na,b,c\n"])
def test_wrong_csv(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"site\.csv"):
        read(tmp_path, text, "site.csv")


def test_missing_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_site(tmp_path / "none.toml", Registry())
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_site(path, Registry())


def test_a_deep_chain_is_refused_in_words(tmp_path: Path) -> None:
    rows = "".join(f'[[device]]\nid="n{n}"\nparent="n{n + 1}"\n' for n in range(3000)) + '[[device]]\nid="n3000"\n'
    with pytest.raises(ConfigError, match="levels deep"):
        read(tmp_path, rows)
