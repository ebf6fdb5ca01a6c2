"""Every verb of the command line, against the independent double and the simulator, as an acceptance run would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.adapters.registry import Registry
from app.interaction_log.reader import LogReader
from app.simulators.aviora import AvioraConfig, AvioraGatewaySimulator, line_meters
from app.simulators.calin_meters import calin_serial, demo_field
from app.simulators.calin_vendor import CalinVendorSimulator, VendorConfig
from app.simulators.chirpstack import GATEWAYS, ChirpStackConfig, ChirpStackSimulator
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from tests.doubles.lem_double import (
    CLOSE,
    WRITTEN,
    HttpDouble,
    Reply,
    http_double,
    legal,
    live,
    make_certificate,
    status,
    stopped,
)
from tests.e2e.conftest import LOOPS, ROOT, Run, in_thread

VECTORS = ROOT / "tests" / "vectors" / "ocmf.json"


@pytest.fixture
def meter() -> Iterator[LemDcbmSimulator]:
    with in_thread(lambda: LemDcbmSimulator(LemDcbmConfig(uptime_s=3600, load="always"))) as sim:
        yield sim


@pytest.fixture
def double() -> Iterator[HttpDouble]:
    with in_thread(http_double) as value:
        value.on("GET", "/v1/status", status())
        value.on("GET", "/v1/legal", legal())
        value.on("GET", "/v1/livemeasure", live())
        value.on("PUT", "/v1/settings", WRITTEN)
        yield value


@pytest.fixture
def site(tmp_path: Path, run: Run) -> Callable[..., Path]:
    """Write and import a site with one LEM at a port; the workspace's path."""

    def make(port: int, **settings: Any) -> Path:
        more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        text = (
            '[[device]]\nid = "lem"\nname = "LEM 4711"\nadapter = "lem-dcbm"\nserial = "4711"\n[device.settings]\n'
            f'host = "127.0.0.1"\nport = {port}\ncommand_timeout_ms = 20000\ninitial_retry_delay_ms = 200\n'
            f"transaction_retry_delay_ms = 50\n{more}"
        )
        path, workspace = tmp_path / "site.toml", tmp_path / "site.mwk"
        path.write_text(text, encoding="utf-8")
        assert run("site", "import", path, "--workspace", workspace, "--json").record["imported"] == 1
        return workspace

    return make


def sent(run: Run, workspace: Path, *words: object, expect: int | None = 0) -> dict[str, Any]:
    return run("send", "lem", *words, "--json", "--workspace", workspace, expect=expect).record


def started(workspace: Path, *words: str) -> subprocess.Popen[str]:
    """A command in a process that goes on beside the test."""
    line = [sys.executable, "-m", "ui", "send", "lem", *words, "--json", "--workspace", str(workspace)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stopped_when_held_back(workspace: Path, command: str, reason: str) -> dict[str, Any]:
    """The first command of a workspace, told to stop once its log says that it waits for this reason."""
    life = started(workspace, command)
    with LogReader(workspace) as reader:
        while (held := reader.interaction(1)) is None or held.failure is None or reason not in held.failure.text:
            assert life.poll() is None, life.communicate()
            time.sleep(0.05)  # nothing tells another process of a change of the file
    life.send_signal(signal.SIGINT)
    out, err = life.communicate(timeout=60)
    assert life.returncode == 3, (out, err)
    record: dict[str, Any] = json.loads(out)
    return record


# ---------------------------------------------------------------- without a device


def test_help_lists_every_verb_and_the_window(run: Run) -> None:
    from app.__main__ import VERBS

    said = run("--help").out
    for verb in VERBS:
        assert verb in said
    assert "Exit status" in said
    for verb in VERBS:
        assert run(verb, "--help").out.startswith("Usage: meterwright")


def test_wrong_use_is_2_and_says_what(run: Run) -> None:
    assert "No such option" in run("devices", "--nope", expect=2).err
    assert "there is no such workspace" in run("devices", expect=2).err


def test_conformance_passes_the_vectors_and_fails_an_altered_one(run: Run, tmp_path: Path) -> None:
    assert run("conformance", VECTORS).out.splitlines()[-1] == "13 passed, 0 failed"
    altered = json.loads(VECTORS.read_text(encoding="utf-8"))
    altered["samples"][0]["expected"]["import_energy_kWh"] = 1.102
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(altered), encoding="utf-8")
    ran = run("conformance", path, expect=1)
    assert ran.out.splitlines()[-1] == "12 passed, 1 failed"
    assert ran.out.startswith("lem-dcbm-2021: ")
    path.write_text(json.dumps({"protocol": "smoke-signals", "samples": []}), encoding="utf-8")
    assert "smoke-signals" in run("conformance", path, expect=2).err
    path.write_text("{", encoding="utf-8")
    assert "is not JSON" in run("conformance", path, expect=2).err


def test_ocmf_verify_the_genuine_record_and_a_flipped_byte(run: Run, tmp_path: Path) -> None:
    sample = json.loads(VECTORS.read_text(encoding="utf-8"))["samples"][0]
    path = tmp_path / "record.ocmf"
    path.write_text(sample["ocmf"], encoding="utf-8")
    good = run("ocmf", "verify", path, "--public-key", sample["public_key"], "--json").record
    assert (good["verdict"], float(good["import_energy_kWh"])) == ("VALID", 1.101)
    path.write_text(sample["ocmf"].replace("58.685", "58.686"), encoding="utf-8")
    assert "INVALID_SIGNATURE" in run("ocmf", "verify", path, "--public-key", sample["public_key"], expect=1).out
    assert run("ocmf", "verify", path, "--json", expect=1).record["verdict"] == "NO_KEY"


def test_explain_takes_json_and_says_what_would_release(run: Run) -> None:
    gate = {
        "command": "START_TRANSACTION",
        "kind": "control",
        "meter": {"id": "lem", "name": "LEM", "needs_link": True, "link": "fault"},
    }
    said = run("explain", "--json", stdin=json.dumps(gate)).record
    assert (said["verdict"], said["code"]) == ("SUSPENDED", "LINK_DOWN")
    assert "comes up" in said["releases_when"]
    assert said["rules"][-1] == {"rule": "link down", "applies": True, "code": "LINK_DOWN"}
    assert "meter.colour" in run("explain", stdin='{"command":"X","meter":{"colour":1}}', expect=2).err
    assert "is not JSON" in run("explain", stdin="hello", expect=2).err


def test_sim_list_and_doctor(run: Run) -> None:
    names = [record["sim"] for record in run("sim", "list", "--json").records]
    assert "lem-dcbm" in names
    assert "silence" in run("sim", "list").out
    assert "no simulator called" in run("sim", "toaster", expect=2).err
    checks = {record["check"]: record["verdict"] for record in run("doctor", "--json", expect=None).records}
    assert len(checks) > 5
    assert set(checks.values()) <= {"ok", "warning", "bad"}


# ---------------------------------------------------------------- the tree


def test_site_and_commands(run: Run, site: Callable[..., Path]) -> None:
    workspace = site(80)
    assert run("devices", "--workspace", workspace, "--json").record["id"] == "lem"
    assert 'id = "lem"' in run("site", "export", "--workspace", workspace).out
    listed = {r["command"]: r for r in run("commands", "lem", "--workspace", workspace, "--json").records}
    start = listed["START_TRANSACTION"]
    assert start["risk"] == "dangerous"
    limits = {param["name"]: param for param in start["params"]}
    assert limits["transaction_id"]["max_bytes"] == 37
    assert (limits["tariff_id"]["minimum"], limits["tariff_id"]["maximum"]) == (0, 4)
    assert "there are: lem" in run("commands", "nobody", "--workspace", workspace, expect=2).err


# ---------------------------------------------------------------- send, against the independent double


def test_send_status_start_stop_sync_against_the_double(
    run: Run, site: Callable[..., Path], double: HttpDouble
) -> None:
    workspace = site(double.port)
    read = sent(run, workspace, "READ_STATUS")
    assert read["status"] == "SUCCESSFUL"
    assert {step["step"] for step in read["steps"]} == set(range(1, 15))
    double.on("POST", "/v1/legal", Reply(201, b'{"running":true}'))
    started = sent(run, workspace, "START_TRANSACTION", "evse_id=DE*1", "transaction_id=tx-1", "--yes")
    assert started["status"] == "SUCCESSFUL"
    assert "transaction_min_stop_time" in started["result"]
    double.on("GET", "/v1/status", status(ongoing=True))
    double.on("GET", "/v1/legal", legal("tx-1"))
    double.on("PUT", "/v1/legal", stopped(transaction_id="tx-1"))
    double.on("GET", "/v1/ocmf", Reply(200, b"mock_ocmf_string"))
    ended = sent(run, workspace, "STOP_TRANSACTION", "--yes")
    assert ended["status"] == "SUCCESSFUL"
    assert ended["result"]["record"] == "mock_ocmf_string"
    double.on("GET", "/v1/status", status())
    assert sent(run, workspace, "SYNC_TIME", "--yes")["status"] == "SUCCESSFUL"
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


def test_newer_firmware_is_driven_through_v2(run: Run, site: Callable[..., Path], double: HttpDouble) -> None:
    double.on("GET", "/v1/status", status(firmware="0.2.1.0"))
    double.on("GET", "/v2/legal", legal())
    double.on("GET", "/v2/livemeasure", live())
    double.on("POST", "/v2/legal", Reply(201, b'{"running":true}'))
    workspace = site(double.port, SC=2, UV="uv", UD="ud")
    assert sent(run, workspace, "READ_LIVE")["status"] == "SUCCESSFUL"
    words = ("evse_id=DE*1", "transaction_id=tx-1", "identification_data=04AABB", "tariff_text=Night", "--yes")
    assert sent(run, workspace, "START_TRANSACTION", *words)["status"] == "SUCCESSFUL"
    (post,) = [seen for seen in double.requests if seen.method == "POST"]
    assert post.json == {
        "evseId": "DE*1", "transactionId": "tx-1", "clientId": "04AABB,tx-1", "tariffId": 0, "TT": "Night", "UV": "uv",
        "UD": "ud", "cableId": 0, "userData": "", "SC": 2,
    }  # fmt: skip
    double.on("GET", "/v1/status", status(firmware="0.2.1.0", ongoing=True))
    double.on("GET", "/v2/legal", legal("tx-1"))
    double.on("PUT", "/v2/legal", stopped(transaction_id="tx-1"))
    double.on("GET", "/v2/ocmf", Reply(200, b"mock_ocmf_string"))
    assert sent(run, workspace, "STOP_TRANSACTION", "--yes")["result"]["record"] == "mock_ocmf_string"


def test_send_asks_before_an_effect_and_refuses_wrong_words(
    run: Run, site: Callable[..., Path], double: HttpDouble
) -> None:
    workspace = site(double.port)
    refused = run("send", "lem", "START_TRANSACTION", "transaction_id=t", "--workspace", workspace, expect=2)
    assert "--yes" in refused.err
    for words, said in [
        (("START_TRANSACTION", "transaction_id=" + "x" * 38), "at most 37 bytes"),
        (("START_TRANSACTION", "transaction_id=t", "tariff_id=5"), "at most 4"),
        (("START_TRANSACTION", "transaction_id=t", "volts=3"), "no parameter 'volts'"),
        (("START_TRANSACTION", "transaction_id"), "not of the form name=value"),
        (("DANCE",), "it has: "),
    ]:
        assert said in run("send", "lem", *words, "--yes", "--workspace", workspace, expect=2).err
    assert double.count("POST", "/v1/legal") == 0


def test_send_to_nobody_is_3_and_nothing_leaves_later(run: Run, site: Callable[..., Path]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        workspace = site(unused.getsockname()[1])
        record = stopped_when_held_back(workspace, "READ_STATUS", "refuses the connection")
    assert record["status"] == "ABORTED"
    assert "refuses the connection" in run("log", "show", 1, "--workspace", workspace).out
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(200, b"{"), "livemeasure"),
        (Reply(200, b"[]"), "livemeasure"),
        (Reply(200, b'{"voltage":NaN}'), "livemeasure"),
        (live(voltage="398"), "voltage"),
        (live(power=True), "power"),
        (Reply(403, b"x"), "403"),
        (Reply(302, b"", headers=(("Location", "http://127.0.0.1:1/"),)), "302"),
    ],
)
def test_send_with_a_bad_answer_fails_clearly(
    run: Run, site: Callable[..., Path], double: HttpDouble, reply: Reply, said: str
) -> None:
    double.on("GET", "/v1/livemeasure", reply)
    record = sent(run, site(double.port), "READ_LIVE", expect=1)
    assert record["status"] == "FAILED"
    assert said in record["failure"]["text"]


def test_a_start_whose_answer_is_lost_is_read_back_and_not_sent_again(
    run: Run, site: Callable[..., Path], double: HttpDouble
) -> None:
    workspace = site(double.port, transaction_retries=0)
    running = [status(ongoing=True)]
    taken = Reply(CLOSE.status, CLOSE.body, CLOSE.fail, then=lambda: double.on("GET", "/v1/status", *running))
    double.on("POST", "/v1/legal", taken)
    double.on("GET", "/v1/legal", legal("tx-9"))
    record = sent(run, workspace, "START_TRANSACTION", "transaction_id=tx-9", "--yes")
    assert record["status"] == "SUCCESSFUL"
    statuses = [step["status"] for step in record["steps"] if "status" in step]
    assert statuses[-4:] == ["QUEUED", "PROCESSING", "OUTCOME_UNKNOWN", "SUCCESSFUL"]
    assert double.count("POST", "/v1/legal") == 1


def test_a_start_that_had_no_effect_ends_as_failed(run: Run, site: Callable[..., Path], double: HttpDouble) -> None:
    workspace = site(double.port, transaction_retries=0)
    double.on("POST", "/v1/legal", CLOSE)
    record = sent(run, workspace, "START_TRANSACTION", "transaction_id=tx-9", "--yes", expect=1)
    assert record["status"] == "FAILED"
    assert record["failure"]["text"].startswith("Failed to start transaction tx-9")


def test_what_is_under_way_at_a_meter_is_not_called_back(
    run: Run, site: Callable[..., Path], double: HttpDouble
) -> None:
    workspace = site(double.port)
    asked = threading.Event()
    double.on("POST", "/v1/legal", Reply(fail="hang", then=asked.set))
    life = started(workspace, "START_TRANSACTION", "transaction_id=tx-1", "--yes")
    assert asked.wait(60)
    life.send_signal(signal.SIGINT)
    out, err = life.communicate(timeout=60)
    assert (life.returncode, json.loads(out)["status"]) == (1, "PROCESSING"), err
    assert "cannot be called back" in err
    double.on("GET", "/v1/status", status(ongoing=True))
    double.on("GET", "/v1/legal", legal("tx-1"))
    ran = run("cancel", "1", "--workspace", workspace, "--json", expect=1)
    assert "It is not cancelled" in ran.err
    assert ran.record["status"] in ("OUTCOME_UNKNOWN", "SUCCESSFUL"), "nobody knows, until it is read back"


def test_https_with_the_pinned_certificate_and_with_another(
    run: Run, tmp_path: Path, site: Callable[..., Path]
) -> None:
    own, other = make_certificate(), make_certificate("another meter")
    with in_thread(lambda: http_double(own.context())) as double:
        double.on("GET", "/v1/status", status())
        double.on("GET", "/v1/legal", legal())
        double.on("GET", "/v1/livemeasure", live())
        double.on("PUT", "/v1/settings", WRITTEN)
        good = site(double.port, tls_certificate=own.pem)
        assert sent(run, good, "READ_STATUS")["status"] == "SUCCESSFUL"
        good.unlink()
        seen = len(double.requests)
        wrong = site(double.port, tls_certificate=other.pem)
        record = stopped_when_held_back(wrong, "READ_STATUS", "certificate")
        assert record["status"] == "ABORTED"
        assert len(double.requests) == seen, "a request byte left before the certificate was checked"


# ---------------------------------------------------------------- against the simulator


def test_tls_switch_by_command_keeps_the_pin(run: Run, site: Callable[..., Path], meter: LemDcbmSimulator) -> None:
    workspace = site(meter.port)
    certificate = sent(run, workspace, "READ_CERTIFICATE")["result"]
    print_ = certificate.get("fingerprint") or certificate["certificate"]["sha256"]
    on = sent(run, workspace, "SET_TLS", "on=true", f"fingerprint={print_}", "--yes")
    assert on["status"] == "SUCCESSFUL", on
    assert meter.settings.tls_on
    over_tls = sent(run, workspace, "READ_STATUS")
    assert over_tls["status"] == "SUCCESSFUL"
    assert "https" in run("log", "show", over_tls["id"], "--workspace", workspace).out
    off = sent(run, workspace, "SET_TLS", "on=false", "--yes")
    assert off["status"] == "SUCCESSFUL", off
    assert sent(run, workspace, "READ_STATUS")["status"] == "SUCCESSFUL"


def test_watch_prints_readings(run: Run, site: Callable[..., Path], meter: LemDcbmSimulator) -> None:
    workspace = site(meter.port)
    records = run("watch", "lem", "voltage", "--count", 2, "--workspace", workspace, "--json").records
    assert [(r["quantity"], r["unit"]) for r in records] == [("voltage", "V")] * 2
    assert "No reading came" in run(
        "watch", "lem", "frequency", "--seconds", 1, "--workspace", workspace, expect=3
    ).err  # fmt: skip


def test_log_export_import_replay(
    run: Run, site: Callable[..., Path], meter: LemDcbmSimulator, tmp_path: Path
) -> None:
    workspace = site(meter.port)
    sent(run, workspace, "START_TRANSACTION", "transaction_id=tx-1", "--yes")
    sent(run, workspace, "STOP_TRANSACTION", "--yes")
    sent(run, workspace, "READ_LIVE")
    listed = run("log", "list", "command:STOP_TRANSACTION", "--workspace", workspace, "--json").record
    assert listed["status"] == "SUCCESSFUL"
    assert "character" in run("log", "list", "status:(", "--workspace", workspace, expect=2).err
    export, again = tmp_path / "log.jsonl", tmp_path / "again.mwk"
    assert run("log", "export", export, "--samples", "--workspace", workspace, "--json").record["rows"] >= 3
    run("log", "import", export, "--workspace", again)
    assert run("log", "compare", workspace, again, "--json").record == {"differences": 0}
    table = tmp_path / "log.csv"
    run("log", "export", table, "--workspace", workspace)
    assert table.read_text(encoding="utf-8-sig").count("\n") == 4
    assert run("log", "stats", "--workspace", workspace, "--json").record
    for source in (workspace, again):
        before = source.read_bytes()
        last = run("replay", source, "--json").records[-1]
        assert (last["differences"], source.read_bytes() == before) == (0, True)
        assert last["played"] >= 3
    count = meter.request_count
    run("replay", workspace, "--speed", "1000")
    assert meter.request_count == count, "a replay reached the meter"
    assert "between 0.1 and 1000" in run("replay", workspace, "--speed", "0", expect=2).err


def test_two_programs_do_not_share_a_workspace(run: Run, site: Callable[..., Path], tmp_path: Path) -> None:
    from app.interaction_log.writer import LogWriter

    workspace = site(80)
    writer = LogWriter(workspace)
    try:
        ran = run("send", "lem", "READ_STATUS", "--workspace", workspace, expect=1)
        assert "open in another Meterwright" in ran.err
    finally:
        writer.close()


@pytest.mark.timeout(360)
def test_demo_headless(run: Run, tmp_path: Path) -> None:
    workspace = tmp_path / "demo.mwk"
    records = run("demo", "--headless", "--workspace", workspace, "--json").records
    assert all(record["passed"] for record in records[:-1])
    assert records[-1]["failed"] == 0
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


# ---------------------------------------------------------------- the CALIN adapters against their simulators

CALIN_METER = '[[device]]\nid = "m{n}"\nname = "Meter {n}"\nparent = "g1"\nadapter = "{key}"\nserial = "{serial}"\n'


def calin_site(
    run: Run, folder: Path, key: str, gateway: str, serials: list[str], settings: Mapping[str, object]
) -> Path:
    """Write and import a grid with one gateway and these meters, m1 and on; the workspace's path."""
    connection = "[device.settings]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    text = '[[device]]\nid = "g1"\nname = "Grid"\nkind = "grid"\n'
    text += f'[[device]]\nid = "gw1"\nname = "Gateway"\nkind = "gateway"\nparent = "g1"\nadapter = "{key}"\n'
    text += f'serial = "{gateway}"\n{connection}'
    for number, serial in enumerate(serials, 1):
        text += CALIN_METER.format(n=number, key=key, serial=serial) + connection
        text += '[device.attributes]\ngateway = "gw1"\n'
    folder.mkdir()
    path, workspace = folder / "site.toml", folder / "site.mwk"
    path.write_text(text, encoding="utf-8")
    imported = run("site", "import", path, "--workspace", workspace, "--json").record
    assert imported["imported"] == 2 + len(serials)
    return workspace


@pytest.fixture
def keyring_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The keyring of the subprocesses knows these."""
    words = {
        "api": "sim-api-token", "hook": "end-to-end-hook", "admin": "adminpw", "pos": "pospw",
        "maintenance": "maintenancepw",
    }  # fmt: skip
    path = tmp_path / "keyring.json"
    path.write_text(json.dumps({"meterwright": words}), encoding="utf-8")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.doubles.file_keyring.FileKeyring")
    monkeypatch.setenv("KEYRING_FILE", str(path))
    return words


def test_send_over_lorawan(run: Run, tmp_path: Path, keyring_words: dict[str, str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    config = ChirpStackConfig(
        webhooks=(f"http://127.0.0.1:{port}/",), webhook_token=keyring_words["hook"], report_every_s=0.5,
        downlink_s=0.05, uplink_s=0.05,
    )  # fmt: skip
    with in_thread(lambda: ChirpStackSimulator(demo_field(1), config)) as sim:
        meter = sim.field[calin_serial(1)]
        settings = {
            "api_url": sim.url, "api_token": "keyring:api", "webhook_port": port, "webhook_token": "keyring:hook",
        }  # fmt: skip
        workspace = calin_site(run, tmp_path / "radio", "calin-lorawan", GATEWAYS[0], [meter.serial], settings)
        words = ("--json", "--workspace", workspace)
        never = run("send", "m1", "READ_CREDIT", *words, expect=1).record
        assert never["failure"]["code"] == "NEVER_SEEN", "a LoRaWAN meter must have been heard once"
        assert run("watch", "m1", "voltage", "--count", 1, *words).record["unit"] == "V"
        read = run("send", "m1", "READ_CREDIT", *words).record
        assert (read["status"], read["result"]["is_on"]) == ("SUCCESSFUL", True)
        assert {step["step"] for step in read["steps"]} == set(range(1, 15))
        off = run("send", "m1", "TURN_OFF", "--yes", *words).record
        assert off["status"] == "SUCCESSFUL"
        assert [entry.command for entry in meter.effects] == ["TURN_OFF"]
        asked = run("put-back", off["id"], *words, expect=2)
        assert "Turn on on Meter 1? Confirm with --yes" in asked.err
        assert run("put-back", off["id"], "--yes", *words).record["command"] == "TURN_ON"
        assert [entry.command for entry in meter.effects] == ["TURN_OFF", "TURN_ON"]
        late = run("put-back", off["id"], "--yes", *words, expect=None)
        assert (late.status, "wrote it again later" in late.err) == (1, True)
        page = tmp_path / "m1.html"
        ended = run("commission", "m1", "--yes", "--report", page, *words, expect=1)
        assert ended.records[-1] == {"report": str(page), "run": 1}, "no token service is set, so its first step fails"
        assert "No token service is set" in page.read_text(encoding="utf-8")
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


def test_send_over_both_of_the_vendors_services(run: Run, tmp_path: Path, keyring_words: dict[str, str]) -> None:
    """Side by side, because the vendor's tasks are looked at every five seconds only."""
    settings: dict[str, object] = {
        "company_name": "DemoCo", "customer_id": "1", "admin_username": "admin", "admin_password": "keyring:admin",
        "pos_username": "pos", "pos_password": "keyring:pos", "maintenance_username": "maintenance",
        "maintenance_password": "keyring:maintenance", "first_poll_s": 1,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        jobs = []
        pool = stack.enter_context(ThreadPoolExecutor(4))
        sims: dict[str, CalinVendorSimulator] = {}
        for version in (1, 2):
            key, config = f"calin-v{version}", VendorConfig(version=version, execute_s=0.1)
            sim = sims[key] = stack.enter_context(
                in_thread(lambda config=config: CalinVendorSimulator(demo_field(2), config))  # type: ignore[misc]
            )
            known = {spec.name for spec in Registry()[key].form()}
            given = {name: value for name, value in settings.items() if name in known} | {"base_url": sim.url}
            for device, command in (("m1", "READ_CREDIT"), ("m2", "TURN_OFF")):
                folder = tmp_path / f"{key}-{command}"
                gateway = next(iter(sim.concentrators))
                workspace = calin_site(run, folder, key, gateway, list(sim.field.meters), given)
                words = ("send", device, command, "--yes", "--json", "--workspace", workspace)
                jobs.append((key, command, pool.submit(run, *words)))
        for key, command, job in jobs:
            record = job.result().record
            assert record["status"] == "SUCCESSFUL", record
            if command == "READ_CREDIT":
                assert "kwh_credit_available" in record["result"]
            else:
                (effect,) = sims[key].field[calin_serial(2)].effects
                assert (effect.command, effect.via) == ("TURN_OFF", key)


# ---------------------------------------------------------------- an Aviora gateway, which dials in


LATE_S = 5000.0  # of the gateway's time, of which ten seconds pass in one of ours


@pytest.fixture
def aviora(run: Run, tmp_path: Path) -> Iterator[tuple[AvioraGatewaySimulator, Path]]:
    """A gateway with two meters that dials a port of ours, and a workspace that listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    config = AvioraConfig(  # quick where it waits for itself, and patient with us, however slow this machine is
        push_port=port, meters=line_meters(2), time_scale=10.0, alive_s=1e6, reconnect_s=1.0, job_s=0.2,
        ident_answer_s=300.0, result_ack_s=100.0,
    )  # fmt: skip
    common = f'adapter = "aviora"\n[device.settings]\nlisten_port = {port}\n'
    text = f'[[device]]\nid = "gw"\nname = "Gateway"\nkind = "gateway"\nserial = "{config.serial}"\n{common}'
    for number, meter in enumerate(config.meters, 1):
        text += f'[[device]]\nid = "m{number}"\nname = "Meter {number}"\nparent = "gw"\n'
        text += f'serial = "{meter.serial}"\n{common}'
    path, workspace = tmp_path / "site.toml", tmp_path / "site.mwk"
    path.write_text(text, encoding="utf-8")
    run("site", "import", path, "--workspace", workspace)
    with in_thread(lambda: AvioraGatewaySimulator(config)) as gateway:
        yield gateway, workspace
    assert run("log", "verify", "--workspace", workspace, "--json").record == {"problems": 0}


def test_send_to_an_aviora_gateway(
    run: Run, tmp_path: Path, aviora: tuple[AvioraGatewaySimulator, Path]
) -> None:
    """Every function, each in a process of its own: the gateway registers with the first and comes back silently."""
    gateway, workspace = aviora

    def send(device: str, command: str, *given: str, expect: int = 0) -> dict[str, Any]:
        words = ("send", device, command, *given, "--yes", "--json", "--workspace", workspace)
        return run(*words, expect=expect).record

    assert "Protocol ZD started" in send("gw", "READ_LOG")["result"]["text"]
    assert gateway.is_registered
    read = send("m2", "READOUT")  # the first job after a start is refused; it is asked for again
    rows = {row["obis"]: row for row in read["result"]["rows"]}
    assert (rows["1.8.0"]["unit"], rows["C.1.0"]["value"]) == ("kWh", gateway.config.meters[1].serial)
    assert {step["step"] for step in read["steps"]} == set(range(1, 15))
    window = ("start=2026-07-01T00:00:00Z", "end=2026-07-01T06:00:00Z")
    assert len(send("m1", "LOAD_PROFILE", *window)["result"]["rows"]) == 24
    assert send("gw", "LIST_DIRECTIVES")["result"]["directives"] == []
    send("gw", "ADD_DIRECTIVE", "id=One", "steps=setBaud=300\nreadData=id")
    (stored,) = send("gw", "LIST_DIRECTIVES")["result"]["directives"]
    assert (stored["id"], len(stored["steps"])) == ("One", 2)
    send("gw", "DELETE_DIRECTIVE", "id=One")
    assert send("gw", "DELETE_DIRECTIVE", "id=One", expect=1)["failure"]["text"]
    send("gw", "ADD_METER", "serial=77000001")
    below = [node for node in run("devices", "--json", "--workspace", workspace).records if node["parent"] == "gw"]
    assert [node["serial"] for node in below] == [meter.serial for meter in gateway.config.meters] + ["77000001"]
    send("gw", "REMOVE_METER", "serial=77000001")
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(range(256)) * 40)
    assert send("gw", "UPDATE_FIRMWARE", f"file={image}", "serve_host=127.0.0.1")["status"] == "SUCCESSFUL"
    assert gateway.firmware == image.read_bytes()


def test_a_readout_that_was_awaited_when_the_program_died(
    run: Run, aviora: tuple[AvioraGatewaySimulator, Path]
) -> None:
    """The late result goes to its own interaction, not to the newer one."""
    gateway, workspace = aviora
    words = ("--json", "--workspace", str(workspace))

    def start(meter: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "ui", "send", meter, "READOUT", *words]
        return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def is_awaiting_second(facts: Mapping[str, Any]) -> bool:
        return bool(facts.get("awaiting")) and str(facts["awaiting"]["ref"]).endswith(":2")

    def dialled() -> int:
        return sum("TCP Connection task created" in line for line in list(gateway.log_lines))

    async def go_on(before: int) -> None:
        await gateway.wait_until(lambda: dialled() > before)
        gateway.clock.advance(LATE_S)

    run("send", "m1", "READOUT", *words)  # past the job that is refused after a start
    gateway.faults.set(f"late={LATE_S:.0f}@push/readout#1")  # by itself it comes when nobody waits any more
    lost = start("m1")
    with LogReader(workspace) as reader:
        while not any(is_awaiting_second(state.facts) for state in reader.snapshot().states):
            assert lost.poll() is None
            time.sleep(0.05)  # nothing tells another process of a change of the file
    lost.kill()
    lost.communicate()
    before = dialled()
    life = start("m2")
    asyncio.run_coroutine_threadsafe(go_on(before), LOOPS[id(gateway)]).result(60)
    newer = json.loads(life.communicate(timeout=90)[0])
    listed = {record["id"]: record for record in run("log", "list", *words).records}
    assert listed[2]["status"] == "SUCCESSFUL", listed[2]
    shown = run("log", "show", "2", *words).record
    serials = {row["value"] for row in shown["result"]["rows"] if row["obis"] == "C.1.0"}
    assert serials == {gateway.config.meters[0].serial}
    assert newer["id"] == 3
    assert newer["status"] == "SUCCESSFUL", newer
