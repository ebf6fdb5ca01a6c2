"""The verbs of flows and reports, against the simulator of the LEM meter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PySide6.QtGui import QColor, QImage

from app.__main__ import main
from app.interaction_log.reader import LogReader
from app.model.flow import FlowRun
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from tests.e2e.conftest import Run, in_thread

FLOW = """
name = "try"
version = 2
title = "A try"
adapters = ["lem-dcbm"]

[[inputs]]
name = "most"
title = "Highest voltage"
type = "decimal"
unit = "V"
default = 1000

[[steps]]
name = "status"
title = "Identity"
command = "READ_STATUS"
on_failure = "stop"
evidence = ["result.meter_id"]
expect = [{ value = "result.meter_id", title = "Meter", exists = true }]

[[steps]]
name = "live"
title = "Live values"
command = "READ_LIVE"
on_failure = "stop"
expect = [{ value = "result.voltage_v", title = "Voltage", unit = "V", min = 0, max = "{input.most}" }]
"""
LOOK = """
[[steps]]
name = "look"
title = "Seal"
ask = "Is the seal whole?"
photo = "required"
"""
SYNC = """
[[steps]]
name = "clock"
title = "Set the clock"
command = "SYNC_TIME"
"""


@pytest.fixture(scope="module")
def meter() -> Iterator[LemDcbmSimulator]:
    with in_thread(lambda: LemDcbmSimulator(LemDcbmConfig(uptime_s=3600, load="always"))) as sim:
        yield sim


class Bench:
    """A profile with own flows, a workspace with one meter, and the verbs in this process."""

    def __init__(self, folder: Path, port: int) -> None:
        self.profile = folder / "profile"
        self.flows = self.profile / "config" / "flows"
        self.flows.mkdir(parents=True)
        self.workspace = folder / "site.mwk"
        site = folder / "site.toml"
        site.write_text(
            '[[device]]\nid = "lem"\nname = "LEM 4711"\nadapter = "lem-dcbm"\n[device.settings]\n'
            f'host = "127.0.0.1"\nport = {port}\n[[device]]\nid = "north"\nname = "North"\nkind = "site"\n',
            encoding="utf-8",
        )
        assert self("site", "import", site, "--workspace", self.workspace).exit_code == 0

    def __call__(self, *words: object) -> Result:
        return CliRunner().invoke(main, ["--profile", str(self.profile), *map(str, words)])

    def write(self, name: str, text: str) -> Path:
        path = self.flows / f"{name}.toml"
        path.write_text(text.replace('"try"', f'"{name}"'), encoding="utf-8")
        return path

    def commission(self, *words: object) -> Result:
        return self("commission", "lem", "--workspace", self.workspace, *words)


@pytest.fixture
def bench(tmp_path: Path, meter: LemDcbmSimulator) -> Bench:
    return Bench(tmp_path, meter.port)


def records(ran: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_a_flow_from_its_start_to_its_report(bench: Bench, run: Run, tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    bench.write("try", FLOW + LOOK)
    photo = tmp_path / "seal.png"
    image = QImage(60, 40, QImage.Format.Format_RGB32)
    image.fill(QColor("green"))
    assert image.save(str(photo))
    pdf, page = tmp_path / "r.pdf", tmp_path / "r.json"
    # as a person starts it: the program with its window brings the PDF
    ran = run(
        "commission", "lem", "--flow", "try", "--set", "most=900", "--answer", "look=yes", "--note", "look=Seal 0815.",
        "--photo", f"look={photo}", "--header", "engineer=A. Engineer", "--header", "site=North", "--report", pdf,
        "--workspace", bench.workspace, "--json",
    ).records  # fmt: skip
    steps = [one["step"] for one in ran if "step" in one]
    assert [(one["name"], one["status"]) for one in steps] == [
        ("status", "PASSED"), ("live", "PASSED"), ("look", "PASSED"),
    ]  # fmt: skip
    assert (steps[2]["answer"], steps[2]["note"], len(steps[2]["attachments"])) == ("yes", "Seal 0815.", 1)
    assert steps[1]["checks"][0]["wanted"] == "from 0 to 900 V"
    assert len([one for one in ran if "interaction" in one]) == 2
    ended = next(one["run"] for one in ran if isinstance(one.get("run"), dict))
    assert (ended["status"], ended["version"], ended["inputs"]) == ("PASSED", 2, {"most": "900"})
    text = "".join(sheet.extract_text() for sheet in pypdf.PdfReader(pdf).pages)
    assert "A. Engineer" in text
    assert "Seal 0815." in text
    for _time in range(2):
        before = page.read_bytes() if page.exists() else None
        assert bench("report", ended["id"], page, "--workspace", bench.workspace).exit_code == 0
        assert before in (None, page.read_bytes())
    assert json.loads(page.read_bytes())["header"]


def test_what_is_not_as_expected_fails_in_words(bench: Bench) -> None:
    bench.write("try", FLOW)
    page = bench.workspace.with_name("failed.html")
    ran = bench.commission("--flow", "try", "--set", "most=1", "--report", page)
    assert ran.exit_code == 1
    assert "1 status: PASSED." in ran.stdout
    assert "2 live: FAILED. Voltage is " in ran.stdout
    assert "wanted from 0 to 1 V: NOT met" in ran.stdout
    assert "Run 1 of try on lem: FAILED. Live values: Voltage is " in ran.stdout
    assert "NOT met" in ran.stdout
    assert "<html" in page.read_text(encoding="utf-8")


def test_nobody_is_asked_on_the_command_line(bench: Bench) -> None:
    bench.write("try", FLOW + LOOK)
    ran = bench.commission("--flow", "try")
    assert ran.exit_code == 1
    assert "Nobody can be asked in an unattended run" in ran.stdout


def test_what_changes_the_meter_is_confirmed(bench: Bench) -> None:
    bench.write("try", FLOW + SYNC)
    ran = bench.commission("--flow", "try")
    assert ran.exit_code == 2
    assert "It changes the device: Set the clock" in ran.stderr
    assert "--yes" in ran.stderr
    with LogReader(bench.workspace) as reader:
        assert reader.flows(FlowRun) == ()
    assert bench.commission("--flow", "try", "--yes").exit_code == 0


def test_the_one_flow_that_suits_is_chosen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    own = bench.write("own", FLOW)
    monkeypatch.setattr("app.flow_files._shipped", lambda _problems: [])
    assert bench.commission().exit_code == 0
    bench.write("other", FLOW)
    ran = bench.commission()
    assert ran.exit_code == 2
    assert "name one of other, own with --flow" in ran.stderr
    assert bench.commission("--flow", own).exit_code == 0  # a file
    ran = bench("commission", "north", "--workspace", bench.workspace)
    assert (ran.exit_code, "No flow is made for North" in ran.stderr) == (2, True)
    ran = bench.commission("--flow", "nope")
    assert (ran.exit_code, "For LEM 4711 there are: other, own." in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--flow", "try", "--set", "most"], "--set takes name=value, not 'most'"),
        (["--flow", "try", "--set", "least=1"], "least"),
        (["--flow", "try", "--answer", "live=yes"], "asks nothing in a step 'live'"),
        (["--flow", "try", "--note", "live=x"], "--answer live=yes"),
        (["--flow", "try", "--report", "r.doc"], "must end with .pdf, .html or .json"),
        (["--flow", "try", "--report", "r.pdf"], "needs the program with its window"),
        (["--flow", "try", "--register"], "--register belongs to the six steps"),
    ],
)
def test_wrong_use_is_2_and_nothing_begins(bench: Bench, words: list[str], says: str) -> None:
    bench.write("try", FLOW)
    ran = bench.commission(*words)
    assert ran.exit_code == 2, ran.output
    assert says in ran.stderr
    with LogReader(bench.workspace) as reader:
        assert reader.flows(FlowRun) == ()


def test_flow_files_are_listed_shown_and_checked(bench: Bench, tmp_path: Path) -> None:
    bench.write("try", FLOW + LOOK)
    listed = {one["flow"]["name"]: one["flow"] for one in records(bench("flow", "list", "--json"))}
    assert listed["try"]["steps"] == ["status", "live", "look"]
    shown = bench("flow", "show", "try").stdout
    assert "--set most=...  Highest voltage in V, 1000 unless given" in shown
    assert "3 look: Seal. Is the seal whole?  --answer look=yes|no" in shown
    assert bench("flow", "check", bench.flows / "try.toml").exit_code == 0
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(FLOW.replace("exists = true", "exist = true"), encoding="utf-8")
    ran = bench("flow", "check", wrong)
    assert ran.exit_code == 2
    assert "steps[1].expect[1].exist" in ran.stderr
    ran = bench("flow", "check", wrong, "--json")
    assert (ran.exit_code, records(ran)[0]["ok"]) == (1, False)
    bench.write("broken", "name = ")
    ran = bench("flow", "list")
    assert (ran.exit_code, "broken.toml" in ran.stderr, "try 2: A try" in ran.stdout) == (1, True, True)


def test_a_report_of_a_run_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    ran = bench("report", 7, tmp_path / "r.json", "--workspace", bench.workspace)
    assert (ran.exit_code, "There is no run 7" in ran.stderr) == (2, True)
    assert not (tmp_path / "r.json").exists()
