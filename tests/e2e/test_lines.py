"""Meters on lines by the command line, each command in a process of its own, against the simulators."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.simulators.dlms import DlmsConfig, DlmsMeterSimulator
from app.simulators.iec62056 import Iec62056Meter
from app.simulators.iec62056 import MeterConfig as HeadConfig
from app.simulators.quecpython import MeterConfig, MeterSimulator, ModuleConfig, ModuleSimulator
from tests.e2e.conftest import ROOT, Run, in_thread

Site = Callable[..., Path]


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Site:
    """Write and import a site with one device called x; the workspace's path."""

    def make(adapter: str, **settings: Any) -> Path:
        more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items() if value is not None)
        text = f'[[device]]\nid = "x"\nname = "Bench"\nadapter = "{adapter}"\n[device.settings]\n{more}'
        path, workspace = tmp_path / "site.toml", tmp_path / "site.mwk"
        path.write_text(text, encoding="utf-8")
        assert run("site", "import", path, "--workspace", workspace, "--json").record["imported"] == 1
        return workspace

    return make


def send(run: Run, workspace: Path, command: str, *given: str, expect: int = 0) -> dict[str, Any]:
    words = ("send", "x", command, *given, "--yes", "--json", "--workspace", workspace)
    return run(*words, expect=expect).record


@pytest.mark.parametrize("link", ["tcp", "pty"])
def test_a_meter_on_an_optical_head(run: Run, site: Site, tmp_path: Path, link: str) -> None:
    config = HeadConfig(model="three-phase", drift_s=40.0, speed=10.0, seed=3)
    with in_thread(lambda: Iec62056Meter(config, link=link)) as meter:
        workspace = site("iec62056", address=meter.address)
        read = send(run, workspace, "READOUT")
        rows = {row["obis"]: row for row in read["result"]["rows"]}
        assert rows["32.7.0"]["unit"] == "V"
        assert {step["step"] for step in read["steps"]} == set(range(1, 15))
        clock = send(run, workspace, "READ_CLOCK")["result"]
        assert 30 < clock["drift_s"] < 60
        found = send(run, workspace, "DETECT")["result"]
        assert (found["mode"], found["attempts"][-1]["verdict"]) == ("C", "identified")
        profile = send(run, workspace, "LOAD_PROFILE", "start=2026-11-20T00:00:00Z")["result"]
        assert profile["period_min"] == 15
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


def test_a_meter_that_is_not_there(run: Run, site: Site, tmp_path: Path) -> None:
    gone = site("iec62056", address=str(tmp_path / "no-such-port"))
    words = ("send", "x", "READOUT", "--wait", 2, "--json", "--workspace", gone)
    failed = run(*words, expect=3).record
    assert "no-such-port" in failed["failure"]["text"]


@pytest.mark.parametrize(("framing", "link"), [("wrapper", "tcp"), ("hdlc", "pty")])
def test_a_dlms_meter(
    run: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: str, link: str
) -> None:
    config = DlmsConfig(framing=framing, link=link)
    words = tmp_path / "keyring.json"
    words.write_text(json.dumps({"meterwright": {"lls": config.password}}), encoding="utf-8")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.doubles.file_keyring.FileKeyring")
    monkeypatch.setenv("KEYRING_FILE", str(words))
    with in_thread(lambda: DlmsMeterSimulator(config)) as meter:
        workspace = site(
            "dlms", address=meter.url, framing=framing, physical_address=17 if framing == "hdlc" else None,
            client=32, authentication="low", password="keyring:lls",
        )  # fmt: skip
        objects = send(run, workspace, "READ_OBJECTS")["result"]["objects"]
        assert [one["obis"] for one in objects if one["class"] == 8] == ["0-0:1.0.0*255"]
        energy = send(run, workspace, "READ_REGISTER", "obis=1-0:1.8.0*255")["result"]
        assert energy["unit"] == "Wh"
        assert abs(send(run, workspace, "SET_CLOCK")["result"]["drift_after_s"]) < 5
    assert config.password.encode() not in workspace.read_bytes()
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


def test_both_sides_of_a_module_link(run: Run, site: Site, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = unused.getsockname()[1]
    config = ModuleConfig(link="tcp", server_port=server, reads_serial=False)
    with in_thread(lambda: ModuleSimulator(config)) as module:
        workspace = site("quecpython", role="meter", line=module.address, backend="echo")
        asked = send(run, workspace, "GET_PARAMETER", "parameter=0x280A")
        assert asked["result"]["decoded"]["value"] == 23
        assert "23" in json.dumps(send(run, workspace, "AT", "line=AT+CSQ?")["result"])
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


def test_the_program_plays_the_module(run: Run, site: Site) -> None:
    with in_thread(lambda: MeterSimulator(MeterConfig(link="tcp"))) as meter:
        workspace = site("quecpython", role="module", line=meter.address)
        assert "204536110042" in json.dumps(send(run, workspace, "READ_SERIAL")["result"])
        echo = send(run, workspace, "SEND_TRANSPARENT", "data=text:hello")["result"]
        assert "68656c6c6f" in json.dumps(echo)


@pytest.mark.parametrize("name", ["iec62056", "dlms", "quec-module", "quec-meter"])
def test_a_simulator_on_a_pseudo_terminal(name: str) -> None:
    command = [sys.executable, "-m", "ui", "sim", name, "--pty"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            assert said["sim"] == name
            assert Path(said["url"]).is_char_device()
        finally:
            process.terminate()
    assert process.returncode == 0
