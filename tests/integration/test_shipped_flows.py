"""The shipped commissioning flows over real sockets, unattended: each one green against its simulator, and each with
faults that it has to name. The pauses of the flows are left out here; everything else is as it is shipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.adapters import _iec62056_rules as iec_rules
from app.adapters.aviora import Aviora
from app.adapters.dlms import Dlms
from app.adapters.dlms import Pace as DlmsPace
from app.adapters.ems import Ems
from app.adapters.iec62056 import Iec62056
from app.adapters.lem_dcbm import LemDcbm
from app.adapters.quecpython import QuecPython
from app.adapters.registry import Registry
from app.composition import open_session, running
from app.errors import LocalProtocolError
from app.flow_files import load_flows, parse_flow
from app.interaction_log.verify import verify
from app.model.command import CommandKind, CommandSpec
from app.model.device import Device, NodeKind
from app.model.flow import FlowRun, RunStatus, StepStatus
from app.model.flow_spec import FlowSpec
from app.model.reading import LinkState
from app.ports import AdapterType
from app.protocols.iec62056_session import Timing
from app.secrets import SessionSecrets
from app.simulators import iec62056 as iec_simulator
from app.simulators._dlms_objects import MeterConfig as DlmsMeterConfig
from app.simulators.aviora import AvioraConfig, AvioraGatewaySimulator, line_meters
from app.simulators.dlms import TEST_PASSWORD, DlmsConfig, DlmsMeterSimulator
from app.simulators.ems import EdgeConfig, EmsEdgeSimulator
from app.simulators.iec62056 import DEFAULT_PASSWORD, Iec62056Meter
from app.simulators.iec62056 import MeterConfig as IecMeterConfig
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from app.simulators.quecpython import ModuleConfig, ModuleSimulator
from tests.integration.held import Held
from tests.integration.test_aviora_adapter import SIM, SIM_PACE
from tests.integration.test_calin_live import engine as calin_engine
from tests.integration.test_calin_live import free_port
from tests.integration.test_device_messaging_adapter import engine as head_end
from tests.integration.test_ems_adapter import QUICK as EMS_PACE
from tests.integration.test_quecpython_adapter import QUICK as QUEC_PACE

NAMES = ("aviora-gateway", "aviora-meter", "calin", "dlms", "ems", "iec62056", "lem-dcbm", "quecpython")
TIMING = Timing(reaction_min_s=0.005, reaction_max_s=0.3, margin_s=0.1, gap_s=0.3, repeat_s=0.05, ident_s=2.0)
TOKEN = "shipped-flows-token"


def shipped(name: str) -> FlowSpec:
    library = load_flows()
    assert library.problems == ()
    return library.flows[name]


def without_pauses(name: str, changes: Mapping[str, Mapping[str, Any]] | None = None) -> FlowSpec:
    """``changes``: keys of a step that are others than the shipped ones, by the step's name."""
    steps = [
        {key: value for key, value in {**step, **(changes or {}).get(step["name"], {})}.items() if key != "wait"}
        for step in shipped(name).definition["steps"]
    ]
    return parse_flow({**shipped(name).definition, "steps": steps}, "shipped, without its pauses")


async def ran(
    held: Held,
    device: str,
    name: str,
    *,
    answers: Mapping[str, Any] | None = None,
    attended: bool = False,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    **inputs: Any,
) -> FlowRun:
    """A run to its end, or until it waits for a person; every question that is not answered here is answered by yes."""
    spec = without_pauses(name, changes)
    given = {step.name: "yes" for step in spec.steps if step.question is not None} | dict(answers or {})
    number = held.workbench.start_flow(device, spec, inputs, answers=given, attended=attended)

    def at_rest() -> FlowRun | None:
        run = held.workbench.flow_run(number)
        return run if run is not None and run.status is not RunStatus.RUNNING else None

    found: FlowRun = await held.until(at_rest)
    return found


def states(run: FlowRun) -> dict[str, str]:
    return {step.name: step.status.value for step in run.steps}


def assert_passed(run: FlowRun, *, skipped: Sequence[str] = (), warned: Sequence[str] = ()) -> None:
    told = {step.name: step.text for step in run.steps if step.status is not StepStatus.PASSED}
    assert run.status is RunStatus.PASSED, (run.text, told)
    expected = dict.fromkeys(states(run), "PASSED")
    expected |= dict.fromkeys(skipped, "SKIPPED") | dict.fromkeys(warned, "WARNED")
    assert states(run) == expected, told


def assert_failed(run: FlowRun, step: str, *words: str, undone: str = "") -> None:
    """It ended at this step, in words, and began nothing after it but ``undone``."""
    assert run.status is RunStatus.FAILED, (run.text, states(run))
    place = list(states(run)).index(step)
    expected = dict.fromkeys(list(states(run))[place + 1 :], "PENDING") | {step: "FAILED"}
    expected |= {undone: "PASSED"} if undone else {}
    assert {name: states(run)[name] for name in expected} == expected, run.text
    for word in words:
        assert word in run.text
    assert run.text.endswith(".")


@asynccontextmanager
async def engine(
    path: Path, kinds: Mapping[str, AdapterType], *devices: Device, secrets: Mapping[str, str] | None = None
) -> AsyncIterator[Held]:
    kept = SessionSecrets()
    for name, words in (secrets or {}).items():
        kept.set(name, words)
    with open_session(path, adapter_types=dict(kinds), secrets=kept) as session:
        for device in devices:
            session.workbench.save_device(device)
        held = Held(session.workbench)
        session.workbench.feed.subscribe(held.look)
        async with running(session.workbench):
            yield held
    assert verify(path) == []


# ---------------------------------------------------------------- the files themselves


def test_all_are_there_and_none_has_a_problem() -> None:
    library = load_flows()
    assert library.problems == ()
    assert tuple(sorted(library.flows)) == NAMES
    assert [flow.name for flow in library.for_adapter("aviora")] == ["aviora-gateway", "aviora-meter"]
    for kind, name in ((NodeKind.GATEWAY, "aviora-gateway"), (NodeKind.METER, "aviora-meter")):
        assert [flow.name for flow in library.for_adapter("aviora", kind)] == [name]
    for key in Registry().known:
        assert library.for_adapter(key), f"no flow is shipped for {key}"


def offered(key: str) -> dict[str, CommandSpec]:
    """Every command that a device of an adapter may have, in any of the roles that a flow is for."""
    kind = Registry()[key]
    found: dict[str, CommandSpec] = {}
    for node in (NodeKind.GATEWAY, NodeKind.METER):
        device = Device(
            id="d", name="D", kind=node, adapter=key, settings={}, attributes={"plugin": "calin-chirpstack"}
        )
        found |= {spec.name: spec for spec in kind.commands(device, {})}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_is_one_that_can_be_run(name: str) -> None:
    """Its commands and parameters exist; only reads have retries; a warning stands before an effect of a higher tier;
    and what comes last is not left to chance.
    """
    flow = shipped(name)
    for key in flow.adapters:
        commands = offered(key)
        for step in flow.steps:
            if not step.command or (step.optional and step.command not in commands):
                continue
            command = commands[step.command]
            assert {param.name for param in command.params} >= set(step.params), (key, step.name)
            assert not (step.retries and command.has_effect), (key, step.name)
            if command.kind is not CommandKind.READ and command.warning:
                assert step.text, f"{step.name} has an effect and does not say which"
    for step in flow.steps:
        assert step.expect or step.evidence or step.question or step.commissioning or step is flow.steps[-1]
        if step.wait_s > 10:  # so long only while something is done that is undone in any case
            place = flow.steps.index(step)
            assert any(other.always for other in flow.steps[place:]), step.name
        assert all(one.title for one in step.expect)
        assert all(one.title for one in step.evidence)
    assert flow.text.endswith(".")
    assert all(not step.text or step.text.endswith(".") for step in flow.steps)


# ---------------------------------------------------------------- LEM DCBM


@asynccontextmanager
async def lem(path: Path, serial: str = "", **config: Any) -> AsyncIterator[tuple[Held, LemDcbmSimulator]]:
    usual = {"uptime_s": 3600, "tls_on": True, "firmware": "0.2.1.0"}
    async with LemDcbmSimulator(LemDcbmConfig(**{**usual, **config})) as meter:
        settings = {
            "host": meter.host, "port": meter.port, "poll_interval_ms": 200, "command_timeout_ms": 2000,
            "initial_retry_delay_ms": 100, "transaction_retry_delay_ms": 20, "transaction_retries": 0,
        }  # fmt: skip
        if meter.settings.tls_on:
            settings["tls_certificate"] = meter.certificate_pem
        device = Device(
            id="lem", name="Bay 1", adapter="lem-dcbm", serial=serial or meter.config.meter_id, settings=settings
        )
        async with engine(path / "lem.mwk", {"lem-dcbm": LemDcbm()}, device) as held:
            await held.until(lambda: held.workbench.state("lem").link is LinkState.ONLINE)
            yield held, meter


async def test_lem_passes_and_leaves_a_verified_record(tmp_path: Path) -> None:
    async with lem(tmp_path, clock_offset_s=3600) as (held, _meter):
        run = await ran(held, "lem", "lem-dcbm", transaction="job-4711", evse_id="DE*ABC*E1", firmware="0.2.1.0")
        assert_passed(run, skipped=("under-load", "energy"))
        record = next(step for step in run.steps if step.name == "record")
        assert {check.what: check.found for check in record.checks}["Signature"] == "VALID"
        status = await held.command("lem", "READ_STATUS", {})
        assert status.result is not None
        assert status.result["ongoing"] is False


LEM_FAULTS = [
    ("identity", {"serial": "12024999999"}, "", {}, ("Serial number", "12024072805", "12024999999")),
    ("clock", {"clock_offset_s": -90}, "", {"set_clock": False}, ("Clock of the meter", "behind", "10 s")),
    ("tls", {"tls_on": False}, "", {}, ("pinned is no",)),
    ("live", {}, "", {"temperature_max": 20}, ("Temperature H is 24.0 °C", "from -40 to 20 °C")),
    ("stop", {}, "flip-ocmf", {}, ("Signature is INVALID", "wanted VALID")),
]


@pytest.mark.parametrize(
    ("step", "setup", "fault", "inputs", "words"), LEM_FAULTS, ids=[fault[0] for fault in LEM_FAULTS]
)
async def test_lem_names_what_is_wrong(
    tmp_path: Path, step: str, setup: dict[str, Any], fault: str, inputs: dict[str, Any], words: tuple[str, ...]
) -> None:
    async with lem(tmp_path, **setup) as (held, meter):
        if fault:
            meter.faults.set(fault)
        run = await ran(held, "lem", "lem-dcbm", transaction="job-4711", **inputs)
        assert_failed(run, step, *words)


async def test_lem_ends_its_transaction_though_the_load_is_missing(tmp_path: Path) -> None:
    async with lem(tmp_path, load="off") as (held, _meter):
        run = await ran(held, "lem", "lem-dcbm", transaction="job-4711", has_load=True)
        assert_failed(run, "under-load", "Current is", "from 1 to 400 A", undone="stop")
        status = await held.command("lem", "READ_STATUS", {})
        assert status.result is not None
        assert status.result["ongoing"] is False


async def test_lem_ends_its_transaction_when_a_person_stops_the_run(tmp_path: Path) -> None:
    async with lem(tmp_path) as (held, _meter):
        spec = without_pauses("lem-dcbm")
        steps = [{**step, "wait": "1 h"} if step["name"] == "running" else step for step in spec.definition["steps"]]
        spec = parse_flow({**spec.definition, "steps": steps}, "shipped, with one pause")
        number = held.workbench.start_flow("lem", spec, {"transaction": "job-4711"}, answers={"nameplate": "yes"})

        def is_running() -> bool:
            run = held.workbench.flow_run(number)
            return run is not None and states(run)["running"] == "RUNNING"

        await held.until(is_running)
        held.workbench.stop_flow(number, actor="Ada")

        def is_over() -> FlowRun | None:
            now = held.workbench.flow_run(number)
            return now if now is not None and not now.is_open else None

        run = await held.until(is_over)
        assert (run.status, run.text) == (RunStatus.STOPPED, "It was stopped by Ada.")
        assert (states(run)["stop"], states(run)["record"]) == ("PASSED", "PENDING")
        status = await held.command("lem", "READ_STATUS", {})
        assert status.result is not None
        assert status.result["ongoing"] is False


async def test_lem_attended_waits_for_a_person_at_the_wrong_meter(tmp_path: Path) -> None:
    async with lem(tmp_path, serial="12024999999") as (held, _meter):
        run = await ran(held, "lem", "lem-dcbm", transaction="job-4711", attended=True)
        assert run.status is RunStatus.WAITING
        assert "Serial number is 12024072805, wanted 12024999999" in run.text
        assert "Do it again, skip it with a reason, or stop the run." in run.text
        held.workbench.stop_flow(run.id)


# ---------------------------------------------------------------- IEC 62056-21


@pytest.fixture
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iec_rules, "TIMINGS", dict.fromkeys(iec_rules.TIMINGS, TIMING))
    monkeypatch.setattr(iec_simulator, "SWITCH_S", 0.3)


@asynccontextmanager
async def iec(path: Path, *, serial: str = "", link: str = "tcp", **config: Any) -> AsyncIterator[Held]:
    usual = {"model": "three-phase", "baud": 9600, "speed": 400.0, "least_wait_s": 2.0}
    async with Iec62056Meter(IecMeterConfig(**{**usual, **config}), link=link) as meter:
        settings = {
            "address": meter.address, "baud": 9600, "timing": "standard", "first_data_s": 1,
            "password": "keyring:password",
        }  # fmt: skip
        device = Device(
            id="meter", name="Meter", adapter="iec62056", serial=serial or meter.data.serial, settings=settings
        )
        secrets = {"password": DEFAULT_PASSWORD}
        async with engine(path / "iec.mwk", {"iec62056": Iec62056()}, device, secrets=secrets) as held:
            yield held


@pytest.mark.usefixtures("_short_times")
async def test_iec62056_passes_and_reads_out_once(tmp_path: Path) -> None:
    async with iec(tmp_path, drift_s=120.0) as held:
        run = await ran(held, "meter", "iec62056", set_clock=True)
        assert_passed(run)
        given = [held.row(number).command for step in run.steps for number in step.interactions]
        assert given.count("READOUT") == 1
        by = {step.name: [(check.what, check.found) for check in step.checks] for step in run.steps}
        assert [what for what, found in by["phases"] if found != "nothing"][:2] == ["Voltage L2", "Voltage L3"]


IEC_FAULTS = [
    ("readout", {"serial": "99999999"}, {}, ("Serial number", "wanted 99999999")),
    pytest.param(
        "supply", {}, {"voltage": 110}, ("Voltage L1", "110 V within 10 %"), marks=pytest.mark.slow, id="supply"
    ),
    pytest.param(
        "clock",
        {"drift_s": 95.0},
        {},
        ("Clock ahead of this computer's is 9", "from -30 to 30 s"),
        marks=pytest.mark.slow,
        id="clock",
    ),
]


@pytest.mark.usefixtures("_short_times")
@pytest.mark.parametrize(("step", "setup", "inputs", "words"), IEC_FAULTS)
async def test_iec62056_names_what_is_wrong(
    tmp_path: Path, step: str, setup: dict[str, Any], inputs: dict[str, Any], words: tuple[str, ...]
) -> None:
    async with iec(tmp_path, **setup) as held:
        assert_failed(await ran(held, "meter", "iec62056", **inputs), step, *words)


@pytest.mark.slow
@pytest.mark.usefixtures("_short_times")
async def test_iec62056_ends_where_a_person_sees_a_swapped_phase(tmp_path: Path) -> None:
    async with iec(tmp_path) as held:
        run = await ran(held, "meter", "iec62056", answers={"phase-sequence": {"answer": "no", "note": "L2, L3"}})
        assert_failed(run, "phase-sequence", "Phase sequence at the terminals is no, wanted yes")


# ---------------------------------------------------------------- DLMS


@asynccontextmanager
async def dlms(path: Path, *, serial: str = "", **meter: Any) -> AsyncIterator[tuple[Held, DlmsMeterSimulator]]:
    async with DlmsMeterSimulator(DlmsConfig(framing="wrapper", meter=DlmsMeterConfig(**meter))) as sim:
        settings = {
            "address": sim.url, "framing": "wrapper", "client": 32, "authentication": "low",
            "password": "keyring:password",
        }  # fmt: skip
        device = Device(
            id="meter", name="Meter", adapter="dlms", serial=serial or sim.config.meter.serial, settings=settings
        )
        kinds = {"dlms": Dlms(pace=DlmsPace(relay_s=0.05))}
        async with engine(path / "dlms.mwk", kinds, device, secrets={"password": TEST_PASSWORD}) as held:
            yield held, sim


async def test_dlms_passes_with_clock_and_relay(tmp_path: Path) -> None:
    async with dlms(tmp_path, clock_offset_s=300.0) as (held, _sim):
        assert_passed(await ran(held, "meter", "dlms", set_clock=True, relay=True))


async def test_dlms_without_leave_writes_nothing(tmp_path: Path) -> None:
    async with dlms(tmp_path) as (held, _sim):
        run = await ran(held, "meter", "dlms")
        left_out = ("clock-before", "set-clock", "nobody-at-work", "disconnect", "connect", "relay-seen")
        assert_passed(run, skipped=left_out)
        rows = [held.row(number) for step in run.steps for number in step.interactions]
        assert {row.kind for row in rows} == {CommandKind.READ}


async def test_dlms_supply_is_connected_again_though_the_run_fails(tmp_path: Path) -> None:
    wrong = {"expect": [{"value": "result.supply", "title": "Supply", "equals": "gone"}]}
    async with dlms(tmp_path) as (held, sim):
        seen: list[bool] = []
        held.workbench.feed.subscribe(lambda _change: seen.append(sim.meter.is_on))
        run = await ran(held, "meter", "dlms", changes={"disconnect": wrong}, relay=True)
        assert_failed(run, "disconnect", "Supply is off, wanted gone", undone="connect")
        assert (False in seen, sim.meter.is_on) == (True, True)


DLMS_FAULTS = [
    ("registers", {"serial": "11111111"}, {}, {}, ("Serial number", "wanted 11111111")),
    ("clock", {"clock_offset_s": -75.0}, {}, {}, ("Clock ahead of this computer's is -7", "from -30 to 30 s")),
    ("nobody-at-work", {}, {"relay": True}, {"nobody-at-work": "no"}, ("wanted yes",)),
]


@pytest.mark.parametrize(
    ("step", "setup", "inputs", "answers", "words"), DLMS_FAULTS, ids=[fault[0] for fault in DLMS_FAULTS]
)
async def test_dlms_names_what_is_wrong(
    tmp_path: Path,
    step: str,
    setup: dict[str, Any],
    inputs: dict[str, Any],
    answers: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    async with dlms(tmp_path, **setup) as (held, _sim):
        assert_failed(await ran(held, "meter", "dlms", answers=answers, **inputs), step, *words)


# ---------------------------------------------------------------- EMS


@asynccontextmanager
async def ems(path: Path, *faults: str) -> AsyncIterator[tuple[Held, EmsEdgeSimulator]]:
    port = free_port()
    device = Device(
        id="ems", name="Storage", adapter="ems", serial="ems_001",
        settings={"listen_port": port, "token": "keyring:token", "answer_timeout_s": 10},
    )  # fmt: skip
    kinds = {"ems": Ems(pace=replace(EMS_PACE, silent_s=5.0, setting_s=0.1))}
    async with engine(path / "ems.mwk", kinds, device, secrets={"token": TOKEN}) as held:
        await held.until(lambda: held.workbench.state("ems").link is not LinkState.OFF)
        config = EdgeConfig(
            url=f"ws://127.0.0.1:{port}/ws/device/{{device_id}}", token=TOKEN, soc=60.0, retry_s=0.5, seed=3,
            time_scale=10.0,
        )  # fmt: skip
        async with EmsEdgeSimulator(config) as edge:
            await held.until(lambda: "mode" in held.workbench.state("ems").facts)
            for fault in faults:
                edge.faults.set(fault)
            yield held, edge


VOLTS = {"telemetry": "50.2", "instrument": "50.0"}


async def test_ems_walks_and_is_left_in_auto(tmp_path: Path) -> None:
    async with ems(tmp_path) as (held, _edge):
        run = await ran(held, "ems", "ems", answers=VOLTS)
        assert_passed(run, skipped=("provoke", "reset"))
        assert held.workbench.state("ems").facts["mode"] == "AUTO"


async def test_ems_resets_an_error_that_somebody_provoked(tmp_path: Path) -> None:
    async with ems(tmp_path) as (held, edge):
        spec = without_pauses("ems")
        answers = {**VOLTS, "safe": "yes"}
        number = held.workbench.start_flow("ems", spec, {"test_reset": True}, answers=answers)

        def is_asked() -> bool:
            run = held.workbench.flow_run(number)
            return run is not None and run.status is RunStatus.WAITING

        await held.until(is_asked)
        run = held.workbench.flow_run(number)
        assert run is not None
        assert states(run)["auto"] == "PASSED", run.text
        assert "Provoke an error" in run.text
        edge.faults.set("error-flag")
        await held.until(lambda: held.workbench.state("ems").facts["state"] == "ERROR")
        edge.faults.clear("error-flag")
        held.workbench.answer_step(number, "provoke", "yes")

        def is_over() -> FlowRun | None:
            now = held.workbench.flow_run(number)
            return now if now is not None and not now.is_open else None

        assert_passed(await held.until(is_over))


async def test_ems_in_error_is_not_walked(tmp_path: Path) -> None:
    async with ems(tmp_path, "error-flag") as (held, _edge):
        await held.until(lambda: held.workbench.state("ems").facts["state"] == "ERROR")
        run = await ran(held, "ems", "ems", answers=VOLTS)
        assert_failed(run, "telemetry", "State is ERROR", "Error flag is OVERHEAT, wanted nothing")
        assert all(not step.interactions for step in run.steps)


async def test_ems_voltage_out_of_bounds_ends_before_power_flows(tmp_path: Path) -> None:
    async with ems(tmp_path) as (held, _edge):
        run = await ran(held, "ems", "ems", answers={**VOLTS, "telemetry": "41.5"})
        assert_failed(run, "telemetry", "Battery voltage is 41.5 V, wanted from 42 to 54 V")


@pytest.mark.slow
async def test_ems_that_obeys_nothing_fails_at_once_and_is_in_auto(tmp_path: Path) -> None:
    async with ems(tmp_path, "no-effect") as (held, _edge):
        run = await ran(held, "ems", "ems", answers=VOLTS)
        assert_failed(run, "idle", "did not answer", undone="auto")
        assert held.workbench.state("ems").facts["mode"] == "AUTO"


async def test_ems_that_does_not_charge_is_put_back_to_auto_and_fails(tmp_path: Path) -> None:
    async with ems(tmp_path, "battery-voltage=54.2") as (held, _edge):
        run = await ran(held, "ems", "ems", answers=VOLTS)
        assert_failed(run, "charge", "Charge: ", undone="auto")
        assert held.workbench.state("ems").facts["mode"] == "AUTO"


# ---------------------------------------------------------------- QuecPython


@asynccontextmanager
async def module(path: Path, *faults: str, **config: Any) -> AsyncIterator[Held]:
    usual: dict[str, Any] = {"link": "tcp", "server_port": free_port(), "reads_serial": False, "faults": faults}
    async with ModuleSimulator(ModuleConfig(**{**usual, **config})) as sim:
        settings = {"role": "meter", "line": sim.address, "timeout_ms": 150}
        device = Device(id="module", name="Module", adapter="quecpython", settings=settings)
        async with engine(path / "module.mwk", {"quecpython": QuecPython(pace=QUEC_PACE)}, device) as held:
            yield held


async def test_quecpython_passes(tmp_path: Path) -> None:
    async with module(tmp_path) as held:
        run = await ran(held, "module", "quecpython", apn="internet", imei="860000000000000", event=True)
        assert_passed(run, skipped=("transparent",))


QUEC_FAULTS = [
    ("imei", ("no-handlers",), {}, ("No answer to GET",)),
    pytest.param("imei", ("bad-fcs",), {}, ("No answer to GET",), marks=pytest.mark.slow),
    ("label", (), {"imei": "860000000000001"}, ("wanted 860000000000001",)),
    ("signal", (), {"signal_min": 25}, ("CSQ is 23", "from 25 to 31")),
    ("apn-wanted", (), {"apn": "iot.example"}, ("APN is internet, wanted iot.example",)),
]


@pytest.mark.parametrize(("step", "faults", "inputs", "words"), QUEC_FAULTS)
async def test_quecpython_names_what_is_wrong(
    tmp_path: Path, step: str, faults: tuple[str, ...], inputs: dict[str, Any], words: tuple[str, ...]
) -> None:
    async with module(tmp_path, *faults) as held:
        assert_failed(await ran(held, "module", "quecpython", **inputs), step, *words)


async def test_quecpython_warns_of_a_module_that_loses_frames(tmp_path: Path) -> None:
    async with module(tmp_path, "whole-buffer") as held:
        run = await ran(held, "module", "quecpython")
        assert_passed(run, skipped=("label", "apn-wanted", "transparent", "event"), warned=("frames",))


# ---------------------------------------------------------------- Aviora


@asynccontextmanager
async def aviora(path: Path, *, serial: str = "") -> AsyncIterator[tuple[Held, AvioraGatewaySimulator]]:
    port = free_port()
    meter = line_meters(2)[0]
    shared: dict[str, Any] = {"adapter": "aviora", "settings": {"listen_port": port, "readout_timeout_s": 100}}
    gateway = Device(id="gw", name="Gateway", kind=NodeKind.GATEWAY, serial=SIM.serial, **shared)
    line = Device(id="meter", name="Feeder", parent="gw", serial=serial or meter.serial, **shared)
    async with engine(path / "aviora.mwk", {"aviora": Aviora(pace=SIM_PACE)}, gateway, line) as held:
        await held.until(lambda: held.workbench.state("gw").link is not LinkState.OFF)
        config: AvioraConfig = replace(SIM, push_port=port, meters=line_meters(2), has_first_job_nack=False)
        async with AvioraGatewaySimulator(config) as sim:
            await held.until(lambda: held.workbench.state("gw").link is LinkState.ONLINE)
            await sim.wait_until(lambda: sim.is_registered)
            yield held, sim


async def test_aviora_gateway_and_its_meter_pass(tmp_path: Path) -> None:
    async with aviora(tmp_path) as (held, _sim):
        assert_passed(await ran(held, "gw", "aviora-gateway", meter="30000099"))
        assert_passed(await ran(held, "meter", "aviora-meter"))


async def test_aviora_wrong_meter_is_named(tmp_path: Path) -> None:
    async with aviora(tmp_path, serial="23660099") as (held, _sim):
        run = await ran(held, "meter", "aviora-meter")
        assert_failed(run, "readout", "does not know the meter")


@pytest.mark.slow
async def test_aviora_another_meter_that_answers_is_no_readout_of_this_one(tmp_path: Path) -> None:
    async with aviora(tmp_path) as (held, sim):
        sim.faults.set("other-meter")
        run = await ran(held, "meter", "aviora-meter")
        assert run.status is RunStatus.FAILED
        assert line_meters(2)[1].serial in run.text


async def test_aviora_fails_in_words(tmp_path: Path) -> None:
    async with aviora(tmp_path) as (held, sim):
        run = await ran(held, "meter", "aviora-meter", voltage=110)
        assert_failed(run, "phases", "Voltage L1", "110 V within 10 %")
        run = await ran(held, "meter", "aviora-meter", answers={"clock": "no"})
        assert_failed(run, "clock", "Clock is no, wanted yes")
        with pytest.raises(LocalProtocolError, match="is for a meter; Gateway is a gateway"):
            await ran(held, "gw", "aviora-meter")
        sim.faults.set("nack")
        run = await ran(held, "gw", "aviora-gateway")
        assert_failed(run, "log")


# ---------------------------------------------------------------- CALIN


CALIN = [
    pytest.param("calin-v1", "m1", id="v1"),
    pytest.param("calin-v1", "m3", id="v1, three phases"),
    pytest.param("calin-v2", "m1", marks=pytest.mark.slow, id="v2"),
    pytest.param("calin-lorawan", "m3", marks=pytest.mark.slow, id="LoRaWAN, three phases"),
]
FIRST_CREDIT = {"initial_credit_kwh": "2.5", "is_hps_on": True}


def assert_commissioned(run: FlowRun, *skipped: str) -> None:
    assert_passed(run, skipped=skipped)
    assert len(next(step for step in run.steps if step.name == "commissioning").interactions) == 6


@pytest.mark.parametrize(("key", "meter"), CALIN)
async def test_calin_passes(tmp_path: Path, key: str, meter: str) -> None:
    async with calin_engine(tmp_path / "calin.mwk", key, meters=3) as held:
        held.workbench.save_device(replace(held.workbench.device("g1"), attributes=FIRST_CREDIT))
        run = await ran(held, meter, "calin", credit_min=2, credit_max=3)
        assert_commissioned(run, *(["phases"] if meter == "m1" else []))


@pytest.mark.slow
async def test_calin_passes_through_a_head_end(tmp_path: Path) -> None:
    async with head_end(tmp_path / "calin.mwk") as held:
        held.workbench.save_device(replace(held.workbench.device("g1"), attributes=FIRST_CREDIT))
        engine_held = Held(held.workbench)
        held.workbench.feed.subscribe(engine_held.look)
        assert_commissioned(await ran(engine_held, "m1", "calin", credit_min=2, credit_max=3), "phases")


CALIN_FAULTS = [
    ("may-clear", {"may-clear": "no"}, {}, ("wanted yes",)),
    ("voltage", {}, {"voltage": 115}, ("Voltage is 2", "115 V within 15 %")),
    ("credit", {}, {"credit_max": "0.5"}, ("Credit is", "from 0 to 0.5 kWh")),
]


@pytest.mark.parametrize(("step", "answers", "inputs", "words"), CALIN_FAULTS, ids=[one[0] for one in CALIN_FAULTS])
async def test_calin_names_what_is_wrong(
    tmp_path: Path, step: str, answers: dict[str, Any], inputs: dict[str, Any], words: tuple[str, ...]
) -> None:
    async with calin_engine(tmp_path / "calin.mwk", "calin-v1") as held:
        held.workbench.save_device(replace(held.workbench.device("g1"), attributes=FIRST_CREDIT))
        assert_failed(await ran(held, "m1", "calin", answers=answers, **inputs), step, *words)
