"""What the README tells people to write is taken by the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.adapters.registry import Registry
from app.flow_files import parse_text
from app.model.command import check_params
from app.model.device import Device, NodeKind
from app.site_file import read_site

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
METER = Device(id="m", name="M", adapter="dlms")
FLOWS = [text for text in FILES if "[[steps]]" in text]
SITES = [text for text in FILES if text not in FLOWS]


@pytest.mark.parametrize("site", SITES, ids=[re.findall(r'adapter = "(.+?)"', site)[-1] for site in SITES])
def test_every_site_file_can_be_imported(tmp_path: Path, site: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(site, encoding="utf-8")
    types = Registry()
    meters = [device for device in read_site(path, types) if device.kind is NodeKind.METER]
    assert meters
    assert all(types[meter.adapter].commands(meter, {}) for meter in meters)


def test_every_calin_adapter_has_an_example() -> None:
    calin = {key for key in Registry() if key.startswith("calin")}
    assert calin
    assert [key for key in calin if f'adapter = "{key}"' not in TEXT] == []


def test_every_picture_is_there() -> None:
    shown = re.findall(r"\]\((resources/.+?)\)", TEXT)
    assert sorted(ROOT / name for name in shown) == sorted((ROOT / "resources" / "screens").glob("*.png"))


@pytest.mark.parametrize("text", FLOWS)
def test_every_flow_can_be_run(text: str) -> None:
    flow = parse_text(text, "the README")
    offered = {spec.name: spec for key in flow.adapters for spec in Registry()[key].commands(METER, {})}
    for step in flow.steps:
        if step.command:
            check_params(offered[step.command].params, step.params, step.name)
