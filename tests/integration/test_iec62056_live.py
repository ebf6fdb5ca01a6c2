"""The IEC 62056-21 adapter against the simulated meter over real pseudo terminals and TCP, with its real line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.adapters import _iec62056_rules as rules
from app.adapters.iec62056 import Iec62056, Iec62056Adapter, Pace
from app.clock import SystemClock
from app.composition import open_session, running
from app.errors import LinkError, LinkReason, RemoteProtocolError
from app.model.command import check_params
from app.model.device import Device
from app.model.interaction import Direction, Interaction
from app.model.reading import LinkState
from app.model.status import Status
from app.ports import AdapterContext, Answer, Dispatch, Execution, Report
from app.protocols import iec62056_21 as iec
from app.protocols.iec62056_session import Timing
from app.secrets import SessionSecrets
from app.simulators import iec62056 as simulator
from app.simulators._iec62056_meters import METERS
from app.simulators.iec62056 import DEFAULT_PASSWORD, Iec62056Meter, MeterConfig, State
from tests.integration.held import DEADLINE_S, Followed, Held

SPEED = 400.0
BAUD = 9600  # of the sign-on: 300 Bd takes real time (see the slow tests)
QUICK = Timing(reaction_min_s=0.005, reaction_max_s=0.3, margin_s=0.1, gap_s=0.3, repeat_s=0.05, ident_s=2.0)
PATIENT = Timing(reaction_min_s=0.005, reaction_max_s=0.7, margin_s=0.2, gap_s=0.4, repeat_s=0.6, ident_s=2.0)
BRIEF = Timing(reaction_min_s=0.005, reaction_max_s=0.1, margin_s=0.05, gap_s=0.1, repeat_s=0.02, ident_s=0.5)
LINKS = [
    pytest.param("pty", marks=pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")),
    "tcp",
]
needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal needs Linux or macOS")
BREAK = iec.encode(iec.BREAK)


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "TIMINGS", {"standard": QUICK, "turkish-2": BRIEF, "turkish-3": PATIENT})
    monkeypatch.setattr(simulator, "SWITCH_S", 0.3)


@dataclass
class Bench(Followed):
    """A meter, an open adapter on its line, what the adapter told and the frames it showed."""

    meter: Iec62056Meter
    kind: Iec62056
    adapter: Iec62056Adapter
    device: Device
    frames: list[tuple[Direction, bytes]] = field(default_factory=list)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _numbers: int = 0

    async def close(self) -> None:
        """Leave the connection."""
        await self.stack.aclose()

    def sent(self) -> bytes:
        return b"".join(data for direction, data in self.frames if direction is Direction.OUT)

    def request(self, command: str, **params: Any) -> Dispatch:
        facts = {"style": "turkish"} if self.meter.kind.is_national else {}
        spec = next(one for one in self.kind.commands(self.device, facts) if one.name == command)
        self._numbers += 1
        now = datetime.now(UTC)
        interaction = Interaction(
            id=self._numbers, device="m", adapter="iec62056", command=command, kind=spec.kind, created=now, updated=now
        )  # fmt: skip
        checked = check_params(spec.params, params, command)
        return Dispatch(
            interaction=interaction, device=self.device, spec=spec, params=checked, attempt=1, tap=self.tap
        )  # fmt: skip

    def tap(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        self.frames.append((direction, bytes(data)))

    async def send(self, command: str, **params: Any) -> Answer:
        async with asyncio.timeout(DEADLINE_S):
            answer = await self.adapter.submit(self.request(command, **params))
        assert isinstance(answer, Answer)
        return answer

    async def good(self, command: str, **params: Any) -> Mapping[str, Any]:
        answer = await self.send(command, **params)
        assert answer.execution is Execution.SUCCESS, (answer.code, answer.text)
        return answer.result


def sim_config(model: str, **changes: Any) -> MeterConfig:
    kind = METERS[model]
    base = {"baud": max(BAUD, kind.baud), "speed": SPEED, "least_wait_s": 2.0, "every_s": 16.0}
    return MeterConfig(**{"model": model, **base, **changes})


def settings_for(meter: Iec62056Meter, **changes: Any) -> dict[str, Any]:
    base = {
        "address": meter.address, "baud": meter.config.baud or meter.kind.baud, "timing": "standard", "first_data_s": 1,
        "password": DEFAULT_PASSWORD, "parity": "software" if meter.config.parity == "even" else "port",
        "mode": "D" if meter.kind.mode.value == "D" else "auto",
        "wakeup": "heat" if meter.kind.wake_nuls else "none",
    }  # fmt: skip
    return {**base, **changes}


@asynccontextmanager
async def connected(
    meter: Iec62056Meter, kind: Iec62056 | None = None, *, facts: Mapping[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Bench]:
    """A new adapter instance on the meter's line."""
    kind = kind or Iec62056(pace=Pace(detect=BRIEF))
    device = Device(id="m", name="Meter", adapter="iec62056", settings=settings_for(meter, **changes))
    known = {**({"style": "turkish"} if meter.kind.is_national else {}), **(facts or {})}
    held: Bench

    def tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        held.frames.append((direction, bytes(data)))

    context = AdapterContext(
        devices=(device,), settings=check_params(kind.form(), device.settings, "test"), clock=SystemClock(), tap=tap,
        secrets=SessionSecrets(), facts=lambda _device: known,
    )  # fmt: skip
    adapter = kind.create(context)
    assert isinstance(adapter, Iec62056Adapter)
    held = Bench(adapter, meter, kind, device)
    await held.stack.enter_async_context(adapter.open())
    group = await held.stack.enter_async_context(asyncio.TaskGroup())
    held.stack.callback(group.create_task(held.follow()).cancel)
    try:
        yield held
    finally:
        await held.close()


@asynccontextmanager
async def bench(
    model: str, link: str = "tcp", *, sim: Mapping[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Bench]:
    async with Iec62056Meter(sim_config(model, **(sim or {})), link=link) as meter, connected(meter, **changes) as held:
        yield held


# ---------------------------------------------------------------- readouts

READ_OUT = [name for name in METERS if name != "mode-d"]
PROGRAMMED = [name for name, kind in METERS.items() if kind.kinds]
slow = pytest.mark.slow


async def at_rest(held: Bench) -> None:
    """The conversation is over on both sides, and the line stands at its first rate."""
    async with asyncio.timeout(DEADLINE_S):
        await held.meter.wait_until(lambda: held.meter.state is State.SIGN_ON)
    assert held.sent().endswith(BREAK)
    assert held.meter.line.client_baud in (None, held.meter.line.format.baud)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("model", [name for name in READ_OUT if name != "heat"])
async def test_every_meter_is_read_out(model: str, link: str) -> None:
    async with bench(model, link) as held:
        found = await held.good("READOUT")
        assert found["identification"] == str(held.meter.kind.head)
        assert found["incomplete"] is False
        assert found["damages"] == []
        assert found["doubts"] == []
        assert found["bcc"] == ("good" if held.meter.kind.is_framed else "no block check")
        values = [value for row in found["rows"] for value in row["values"]]
        assert held.meter.data.serial in values
        assert found["meter_serial"] == held.meter.data.serial
        assert len(found["rows"]) >= 5
        assert DEFAULT_PASSWORD.encode() not in held.sent()
        await at_rest(held)


@pytest.mark.parametrize("link", [pytest.param("pty", marks=[slow, needs_pty]), "tcp"])
async def test_heat_meter_is_woken(link: str) -> None:
    async with bench("heat", link, sim={"least_wait_s": 0.25}, timing="turkish-3") as held:
        found = await held.good("READOUT")
        assert [row["obis"] for row in found["rows"]][:3] == ["6.8", "6.26", "9.21"]
        assert len(found["rows"]) == 14
        assert found["doubts"] == []
        assert held.meter.sign_ons == 1


@slow
@needs_pty
@pytest.mark.parametrize("model", [name for name in READ_OUT if name != "heat"])
async def test_every_meter_is_read_out_from_its_own_first_rate_with_the_standards_times(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    sim = {"baud": 0, "speed": 2.0 if model == "iskra" else 10.0, "least_wait_s": 2.0}
    async with bench(model, "pty", sim=sim) as held:
        found = await held.good("READOUT")
        assert found["doubts"] == []
        await at_rest(held)


@slow
@needs_pty
async def test_heat_meter_from_300_bd_with_the_standards_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    async with bench("heat", "pty", sim={"baud": 0, "speed": 10.0, "least_wait_s": 1.0}) as held:
        assert len((await held.good("READOUT"))["rows"]) == 14


async def test_samples_of_a_three_phase_meter_fit_its_registers() -> None:
    async with bench("three-phase") as held:
        answer = await held.send("READOUT")
        (sample,) = answer.samples
        values = {quantity.name: value for quantity, value in sample.values}
        assert float(values["energy_import"]) == pytest.approx(held.meter.data.kwh() * 1000, abs=100)
        assert 220 < values["voltage_l1"] < 240
        assert {row["obis"] for row in answer.result["rows"]} >= {"81.7.1", "81.7.4", "81.7.26"}


@pytest.mark.parametrize(("packet", "known"), [("6", "1.6.0"), ("7", "1.8.0*12"), ("8", "96.30.1"), ("9", "96.77.0*7")])
async def test_turkish_packets(packet: str, known: str) -> None:
    async with bench("turkish-3") as held:
        found = await held.good("READOUT", packet=packet)
        assert known in {row["obis"] for row in found["rows"]}
        assert found["meter_serial"] == held.meter.data.serial


@needs_pty
async def test_a_meter_of_one_rate_is_read_and_programmed_at_it() -> None:
    """Turkish generation 2 offers 19200 and stays at the 9600 it was begun with."""
    async with bench("turkish-2", "pty") as held:
        assert (await held.good("READOUT", packet="6"))["doubts"] == []
        assert (await held.good("READ_REGISTER", obis="0.0.0"))["value"] == held.meter.data.serial
        assert held.meter.sign_ons == 2
        assert held.sent().count(b"\x06056\r\n") == held.sent().count(b"\x06051\r\n") == 1


async def test_an_emh_table_is_asked_for_by_number() -> None:
    async with bench("emh", table="4", meter_address="05296170") as held:
        found = await held.good("READOUT")
        assert [row["obis"] for row in found["rows"]] == ["0.0.0", "F.F", "0.9.1", "0.9.2"]


async def test_the_meters_address_is_answered() -> None:
    async with bench("turkish-2", meter_address="MKS510012300") as held:
        assert (await held.good("SIGN_ON"))["generation"] == 2


@slow
async def test_another_address_gets_no_answer() -> None:
    async with bench("landis", meter_address="13647124", timing="turkish-2") as held:
        with pytest.raises(LinkError) as failure:
            await held.send("SIGN_ON")
        assert failure.value.reason is LinkReason.SILENT


@pytest.mark.parametrize("link", LINKS)
async def test_mode_d_is_waited_for(link: str) -> None:
    async with bench("mode-d", link) as held:
        found = await held.good("READOUT")
        assert found["bcc"] == "no block check"
        assert len(found["rows"]) == 7
        assert held.sent() == b""


@pytest.mark.parametrize("link", LINKS)
async def test_a_connection_that_only_listens_tells_every_message(link: str) -> None:
    async with bench("mode-d", link, mode="listen") as held:
        reports = await held.until(lambda: len(held.of(Report)) >= 3 and held.of(Report))
        whole = [one.answer.result for one in reports if one.command == "READOUT"][-1]
        assert whole["identification"] == "/ESY5Q3DA1004 V3.02"
        assert len(whole["rows"]) == 7
        assert held.sent() == b""


@pytest.mark.parametrize("link", LINKS)
async def test_parity_by_software_for_a_port_that_does_8n1_only(link: str) -> None:
    async with bench("iskra", link, sim={"parity": "even"}) as held:
        found = await held.good("READOUT")
        assert found["doubts"] == []
        clock = await held.good("READ_CLOCK")
        assert abs(clock["drift_s"]) < 5
        assert any(octet & 0x80 for octet in held.sent())


# ---------------------------------------------------------------- programming mode


ON_TCP = [
    pytest.param(name, "tcp", marks=[slow] if name in ("three-phase", "mode-e", "turkish-2") else [])
    for name in PROGRAMMED
]
ON_PTY = [
    pytest.param(name, "pty", marks=[needs_pty] if name == "emh" else [slow, needs_pty]) for name in PROGRAMMED
]


@pytest.mark.parametrize(("model", "link"), [*ON_TCP, *ON_PTY])
async def test_register_clock_and_setting_it(model: str, link: str) -> None:
    async with bench(model, link, sim={"drift_s": 95}) as held:
        obis = "C.1.0" if model == "landis" else "0.0.0"
        assert (await held.good("READ_REGISTER", obis=obis))["value"] == held.meter.data.serial
        before = await held.good("READ_CLOCK")
        assert before["drift_s"] == pytest.approx(95, abs=5)
        done = await held.good("SET_CLOCK")
        assert done["drift_before_s"] == pytest.approx(95, abs=5)
        assert abs(done["drift_after_s"]) < 5
        offset = held.meter.data.now.astimezone() - datetime.now(UTC)
        assert abs(offset) < timedelta(seconds=5)
        assert held.meter.wrong_passwords == 0
        frames = b"".join(data for _direction, data in held.frames)
        assert DEFAULT_PASSWORD.encode() not in frames
        await at_rest(held)


async def test_a_clock_is_set_to_a_time_of_ones_own() -> None:
    wanted = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
    async with bench("emh") as held:
        done = await held.good("SET_CLOCK", time=wanted.isoformat())
        assert abs(held.meter.data.now.astimezone() - wanted) < timedelta(seconds=10)
        assert done["drift_after_s"] == pytest.approx(40 * 86400, abs=10)


async def test_the_event_log_tells_that_the_clock_was_set() -> None:
    async with bench("emh", "tcp", sim={"drift_s": 60}) as held:
        await held.good("SET_CLOCK")
        found = await held.good("READ_EVENTS")
        assert [row["status"] for row in found["rows"]] == ["00000080", "00000040", "00000020"]
        assert found["channels"][0]["obis"] == "0.9.1"


def hours_ago(hours: int) -> str:
    """A minute past a full hour, so that no period ends at the border."""
    hour = datetime.now(UTC).replace(minute=1, second=0, microsecond=0)
    return (hour - timedelta(hours=hours)).isoformat()


@pytest.mark.parametrize("model", [name for name in PROGRAMMED if METERS[name].profiles])
async def test_load_profile_of_a_range(model: str) -> None:
    async with bench(model) as held:
        found = await held.good("LOAD_PROFILE", start=hours_ago(3), end=hours_ago(1))
        assert len(found["rows"]) == 8
        assert found["missing"] == 0
        assert found["doubts"] == []
        named = [channel["obis"] for channel in found["channels"]]
        assert named[0] == ("1.8.0" if held.meter.kind.is_national else "1.5.0")
        assert all(len(row["values"]) == len(named) for row in found["rows"])


@pytest.mark.parametrize(("kind", "count"), [("5", 0), ("6", 15)])
async def test_whole_profile_with_a_power_failure_at_once_and_in_parts(kind: str, count: int) -> None:
    sim = {"faults": ("gap",), "profile_days": 1, "partial_chars": 200}
    async with bench("emh", read_command=kind, sim=sim) as held:
        found = await held.good("LOAD_PROFILE")
        assert len(found["rows"]) == 97 - 7
        assert found["missing"] == 7
        assert {row["status"] for row in found["rows"]} == {"00000000", "00000080", "00000040"}
        assert held.sent().count(iec.ACK) - held.sent().count(b"\x06041\r\n") >= count


async def test_profile_over_the_end_of_summer_time_keeps_both_hours() -> None:
    async with bench("landis", sim={"faults": ("dst",), "profile_days": 1}) as held:
        found = await held.good("LOAD_PROFILE")
        times = [row["time"] for row in found["rows"]]
        assert len(times) == 97
        assert len(times) - len(set(times)) == 4
        assert found["missing"] == 0
        assert ["summer time"] in [row.get("flags") for row in found["rows"]]


async def test_repeated_headers_change_nothing() -> None:
    async with bench("landis", sim={"faults": ("repeat-header",)}) as held:
        found = await held.good("LOAD_PROFILE", start=hours_ago(6), end=hours_ago(1))
        assert len(found["rows"]) == 20
        assert found["doubts"] == []


async def test_turkish_relay_setting_and_status() -> None:
    async with bench("turkish-3") as held:
        done = await held.send("DISCONNECT_SUPPLY")
        assert done.facts["supply"] == "disconnected"
        assert held.meter.data.is_supplied is False
        again = await held.send("CONNECT_SUPPLY")
        assert again.facts["supply"] == "connected"
        assert held.meter.data.read("96.3.10") == "(0)"
        changed = await held.good("WRITE_REGISTER", obis="0.8.4", value="30*min")
        assert (changed["old"], changed["new"]) == ("15*min", "30*min")
        held.meter.data.status_bits |= 1 << 5
        status = await held.good("READ_REGISTER", obis="F.F.0")
        assert status["flags"] == ["terminal cover open"]


async def test_execute_and_octets_as_entered() -> None:
    async with bench("landis") as held:
        await held.good("EXECUTE", data="0.1.0()")
        assert held.meter.data.executed == ["0.1.0()"]
        found = await held.good("RAW", data=b"/?!\r\n".hex(), wait_s=1)
        assert bytes.fromhex(found["received"]).startswith(b"/LGZ4ZMF100AC.M26\r\n")


# ---------------------------------------------------------------- passwords


@pytest.mark.parametrize("model", ["landis", pytest.param("iskra", marks=slow), "emh", "turkish-3"])
async def test_a_wrong_password_is_sent_once_only(model: str) -> None:
    async with bench(model, password="00000001") as held:
        for _ in range(3):
            answer = await held.send("SET_CLOCK")
            assert answer.execution is Execution.FAILURE
            assert answer.code == "PASSWORD_REFUSED"
            assert "00000001" not in answer.text
        assert held.meter.wrong_passwords == 1
        async with connected_again(held, password=DEFAULT_PASSWORD) as other:
            await other.good("SET_CLOCK")
        assert held.meter.wrong_passwords == 1


@asynccontextmanager
async def connected_again(held: Bench, **changes: Any) -> AsyncIterator[Bench]:
    """The same adapter type on the same line, after the first connection was closed."""
    await held.close()
    async with connected(held.meter, held.kind, **changes) as other:
        yield other


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("refuse-password", "PASSWORD_REFUSED", "NAK"),
        ("locked", "PASSWORD_REFUSED", "ER04"),
        ("error-er=ER07@0.9.1", "METER_ERROR", "ER07"),
        ("nak-all@0.9.2", "METER_ERROR", "NAK"),
    ],
)
async def test_what_the_meter_refuses_is_said_in_its_words(fault: str, code: str, said: str) -> None:
    async with bench("landis", sim={"faults": (fault,)}) as held:
        answer = await held.send("SET_CLOCK")
        assert answer.execution is Execution.FAILURE
        assert answer.code == code
        assert said in answer.text
        await at_rest(held)


# ---------------------------------------------------------------- faults of the wire

RECOVERED = [
    ("silent@sign-on#1", 1), ("slow", 1), ("bad-bcc@readout#1", 2), ("cut@readout#1", 2), ("echo", 1), ("noise", 1),
    ("nul", 1), pytest.param("drop@ident#1", 2, marks=slow), pytest.param("silent@option#1", 1, marks=slow),
]  # fmt: skip


@needs_pty
@pytest.mark.parametrize(("fault", "readouts"), RECOVERED)
async def test_the_readout_comes_in_spite_of(fault: str, readouts: int) -> None:
    async with bench("landis", "pty", sim={"faults": (fault,)}) as held:
        found = await held.good("READOUT")
        assert found["doubts"] == []
        assert found["bcc"] == "good"
        assert held.meter.readouts <= readouts


@slow
@needs_pty
async def test_a_meter_that_stays_at_its_first_rate_is_followed() -> None:
    async with bench("landis", "pty", sim={"faults": ("wrong-baud",), "speed": 2.0}) as held:
        assert (await held.good("READOUT"))["doubts"] == []


@slow
async def test_a_password_that_got_no_answer_is_not_sent_again_by_itself() -> None:
    async with bench("landis", sim={"faults": ("silent@programming#1",)}) as held:
        with pytest.raises(LinkError, match="not sent again"):
            await held.send("READ_REGISTER", obis="0.9.1")
        assert (await held.good("READ_REGISTER", obis="C.1.0"))["value"] == held.meter.data.serial


@pytest.mark.parametrize(
    "fault", [pytest.param("silent@0.9.1#1", marks=slow), "bad-bcc@0.9.1#1", "echo", "noise@programming", "slow"]
)
async def test_a_register_is_read_in_spite_of(fault: str) -> None:
    async with bench("landis", sim={"faults": (fault,)}) as held:
        assert (await held.good("READ_REGISTER", obis="0.9.1"))["value"].count(":") == 2


DAMAGED = [
    ("bad-bcc@readout", "BAD_CHECK", "wrong"),
    ("cut@readout", "INCOMPLETE", "missing"),
    pytest.param("drop@readout", "INCOMPLETE", "missing", marks=slow),
]


@pytest.mark.parametrize(("fault", "code", "check"), DAMAGED)
async def test_a_damaged_readout_is_a_failure_that_shows_what_came(fault: str, code: str, check: str) -> None:
    async with bench("landis", sim={"faults": (fault,)}, timing="turkish-2") as held:
        answer = await held.send("READOUT")
        assert answer.execution is Execution.FAILURE
        assert answer.code == code
        assert answer.result["incomplete"] is True
        assert check in answer.result["bcc"]
        assert len(answer.result["rows"]) >= 5
        held.meter.faults.clear()
        assert (await held.good("READOUT"))["incomplete"] is False


async def test_a_readout_without_its_closing_mark_is_doubted() -> None:
    async with bench("landis", sim={"faults": ("no-end",)}) as held:
        answer = await held.send("READOUT")
        assert answer.execution is Execution.SUCCESS
        assert "closing !" in answer.text
        assert "closing !" in " ".join(answer.result["doubts"])
        assert [finding.code for finding in answer.findings].count("DOUBTFUL_RESULT") == 1


@pytest.mark.parametrize("fault", ["silent@sign-on", pytest.param("hang=0.4@sign-on", marks=slow)])
async def test_a_silent_meter_fails_in_bounded_time_and_the_line_goes_on(fault: str) -> None:
    async with bench("landis", sim={"faults": (fault,)}, timing="turkish-2") as held:
        with pytest.raises(LinkError) as failure:
            await held.send("READOUT")
        assert failure.value.reason is LinkReason.SILENT
        assert not failure.value.may_have_arrived
        assert held.lost is None
        held.meter.faults.clear()
        async with asyncio.timeout(DEADLINE_S):
            await held.meter.wait_until(lambda: held.meter.state is State.SIGN_ON)
        assert (await held.good("SIGN_ON"))["model"] == "LGZ ZMF100AC.M26"


@slow
async def test_parity_that_the_port_does_not_take_off_is_told() -> None:
    async with bench("landis", sim={"faults": ("parity-8n1@ident",)}, timing="turkish-2") as held:
        with pytest.raises(RemoteProtocolError, match=r"look like 7E1 .* parity by software"):
            await held.send("READOUT")
        held.meter.faults.clear()
        assert (await held.good("SIGN_ON"))["model"] == "LGZ ZMF100AC.M26"


@slow
@pytest.mark.parametrize("fault", ["silent@readout", "hang=0.4@readout", "silent@programming"])
async def test_a_meter_that_falls_silent_later_fails_in_bounded_time(fault: str) -> None:
    async with bench("landis", sim={"faults": (fault,)}, timing="turkish-2") as held:
        with pytest.raises((LinkError, RemoteProtocolError)):
            await held.send("READ_REGISTER" if "programming" in fault else "READOUT", **(
                {"obis": "0.9.1"} if "programming" in fault else {}
            ))  # fmt: skip
        held.meter.faults.clear()
        await held.good("READOUT")


# ---------------------------------------------------------------- the cable

UNPLUGGED = [
    ("sign-on", "READOUT"), ("ident", "READOUT"), ("option", "READOUT"), ("readout", "READOUT"),
    ("programming", "READ_CLOCK"), ("0.9.1", "SET_CLOCK"),
]  # fmt: skip


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("state", "command"), UNPLUGGED)
async def test_the_cable_is_pulled_in_every_state_and_the_reopened_port_works(
    state: str, command: str, link: str
) -> None:
    async with Iec62056Meter(sim_config("landis", faults=(f"unplug=0.02@{state}#1",)), link=link) as meter:
        async with connected(meter) as held:
            with pytest.raises(LinkError) as failure:
                await held.send(command)
            assert failure.value.reason is LinkReason.CLOSED
            await held.until(lambda: held.lost)
            assert held.lost is not None
            assert os.path.basename(meter.address) in str(held.lost) or "socket://" in str(held.lost)
        async with asyncio.timeout(DEADLINE_S):
            await meter.line.wait_plugged()
        async with connected(meter) as held:
            assert (await held.good("READOUT"))["incomplete"] is False


SLUGGISH = {"speed": 6.0, "least_wait_s": 0.1}  # a readout takes a fifth of a second
MOSTLY_PTY = [pytest.param("pty", marks=needs_pty), pytest.param("tcp", marks=slow)]


@pytest.mark.parametrize("link", MOSTLY_PTY)
async def test_a_cancelled_readout_sends_a_break_and_the_next_command_works(link: str) -> None:
    async with bench("landis", link, sim=SLUGGISH) as held:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(held.adapter.submit(held.request("READOUT")))
            await held.meter.wait_until(lambda: held.meter.state is State.READOUT)
            await asyncio.sleep(0.05)  # in the middle of it
            assert held.meter.readouts == 0
            task.cancel()
        assert task.cancelled()
        assert held.sent().endswith(BREAK)
        assert held.meter.line.client_baud in (None, BAUD)
        held.meter.line.speed = SPEED
        async with asyncio.timeout(DEADLINE_S):
            await held.meter.wait_until(lambda: held.meter.state is State.SIGN_ON)
        assert (await held.good("READOUT"))["incomplete"] is False


@pytest.mark.parametrize("link", MOSTLY_PTY)
async def test_closing_breaks_off_what_is_under_way_and_gives_the_port_back_at_once(link: str) -> None:
    async with bench("landis", link, sim=SLUGGISH) as held:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(failure_of(held.adapter.submit(held.request("READOUT"))))
            await held.meter.wait_until(lambda: held.meter.state is State.READOUT)
            await held.close()
        failure = task.result()
        assert isinstance(failure, LinkError)
        assert "closed here" in str(failure)
        assert held.sent().endswith(BREAK)
        held.meter.line.speed = SPEED
        async with connected(held.meter) as other:
            async with asyncio.timeout(DEADLINE_S):
                await held.meter.wait_until(lambda: held.meter.state is State.SIGN_ON)
            await other.good("READOUT")


@slow
async def test_a_sign_on_waits_until_the_meter_has_ended_its_readout() -> None:
    sim = {"speed": 1.0, "least_wait_s": 0.1}  # a readout takes 1.2 s, four sign-ons of "turkish-2" 0.7 s
    async with bench("landis", "tcp", sim=sim, timing="turkish-2") as held:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(held.adapter.submit(held.request("READOUT")))
            await held.meter.wait_until(lambda: held.meter.state is State.READOUT)
            await asyncio.sleep(0.1)
            task.cancel()
        await held.good("SIGN_ON")


@slow
@needs_pty
async def test_a_meters_own_break_costs_no_second_sign_on() -> None:
    async with bench("iskra", "pty", sim={"speed": 1.0}) as held:
        for _ in range(2):
            await held.good("READ_REGISTER", obis="C.1.0")
        assert held.sent().count(b"/?!") == 2


async def failure_of(work: Awaitable[Any]) -> Exception | None:
    try:
        await work
    except LinkError as exc:
        return exc
    return None


# ---------------------------------------------------------------- detection


DETECTED = [
    pytest.param("pty", 300, "none", "300 7E1", "port", marks=needs_pty),
    pytest.param("pty", 9600, "even", "9600 7E1", "software", marks=[slow, needs_pty]),
    pytest.param("pty", 2400, "none", "2400 7E1", "port", marks=[slow, needs_pty]),
    pytest.param("tcp", 9600, "even", "1200 7E1", "software"),
]


@pytest.mark.parametrize(("link", "baud", "parity", "form", "by"), DETECTED)
async def test_detect_finds_rate_and_parity_and_teaches_them(
    link: str, baud: int, parity: str, form: str, by: str
) -> None:
    async with bench("landis", link, sim={"baud": baud, "parity": parity}, baud=1200, parity="port") as held:
        answer = await held.send("DETECT")
        assert answer.execution is Execution.SUCCESS, answer.text
        assert answer.result["identification"] == "/LGZ4ZMF100AC.M26"
        assert answer.result["format"] == form
        *before, last = answer.result["attempts"]
        assert last["verdict"] == "identified"
        assert last["parity"] == by
        assert bytes.fromhex(last["received"])
        assert all(one["verdict"] in ("silent", "noise") for one in before)
        assert len(before) < 8
        assert answer.settings["baud"] == int(form.split()[0])
        assert answer.learnt == {"LGZ ZMF100AC.M": f"{form} {by}"}
        assert held.meter.wrong_passwords == 0


async def test_detect_ends_when_nothing_answers() -> None:
    async with bench("landis", sim={"faults": ("silent",)}) as held:
        answer = await held.send("DETECT")
        assert answer.execution is Execution.FAILURE
        assert answer.code == "NOT_FOUND"
        assert {one["verdict"] for one in answer.result["attempts"]} == {"silent"}
        assert len(answer.result["attempts"]) <= 16


@slow
@needs_pty
async def test_detect_on_a_dead_port_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench("landis", "pty", sim={"faults": ("silent",)}) as held:
        answer = await held.send("DETECT")
        assert answer.code == "NOT_FOUND"
        spent = sum(one["seconds"] for one in answer.result["attempts"])
        real = spent + len(answer.result["attempts"]) * (rules.DETECT_TIMING.first_s - BRIEF.first_s)
        assert real < rules.DETECT_S / 2


# ---------------------------------------------------------------- the whole engine


@dataclass
class Engine(Held):
    """With its meter."""

    meter: Iec62056Meter

    @property
    def link(self) -> LinkState:
        return self.workbench.state("m").link

    async def send(self, command: str, **params: Any) -> Interaction:
        return await self.command("m", command, params)


@asynccontextmanager
async def engine(path: Path, link: str, **sim: Any) -> AsyncIterator[Engine]:
    async with Iec62056Meter(sim_config("landis", **sim), link=link) as meter:
        with open_session(path, adapter_types={"iec62056": Iec62056()}, secrets=SessionSecrets()) as session:
            given = settings_for(meter, password="")
            session.workbench.save_device(Device(id="m", name="Meter", adapter="iec62056", settings=given))
            held = Engine(session.workbench, meter)
            session.workbench.feed.subscribe(held.look)
            async with running(session.workbench):
                await held.until(lambda: held.link is LinkState.ONLINE)
                yield held


@pytest.mark.parametrize("link", MOSTLY_PTY)
async def test_engine_a_cable_pulled_in_a_readout_fails_it_and_the_link_comes_back(tmp_path: Path, link: str) -> None:
    async with engine(tmp_path / "pulled.mwk", link, faults=("unplug=0.1@readout#1",)) as held:
        failed = await held.send("READOUT")
        assert failed.status is Status.FAILED
        assert failed.failure is not None
        assert "gone" in failed.failure.text or "closed" in failed.failure.text
        assert "Traceback" not in failed.failure.text
        await held.until(lambda: held.link is LinkState.ONLINE and held.meter.line.is_plugged)
        done = await held.send("READOUT")
        assert done.status is Status.SUCCESSFUL


@pytest.mark.parametrize("link", MOSTLY_PTY)
async def test_engine_a_readout_under_way_is_stopped_with_a_break(tmp_path: Path, link: str) -> None:
    async with engine(tmp_path / "stopped.mwk", link, **SLUGGISH) as held:
        number = held.workbench.submit("m", "READOUT", {})
        async with asyncio.timeout(DEADLINE_S):
            await held.meter.wait_until(lambda: held.meter.state is State.READOUT)
        assert held.workbench.stop_read(number)
        async with asyncio.timeout(DEADLINE_S):
            stopped = await held.workbench.settled(number)
            assert stopped.failure is not None
            assert stopped.failure.code == "STOPPED"
            await held.meter.wait_until(lambda: held.meter.state is State.SIGN_ON)
        assert held.link is LinkState.ONLINE
        held.meter.line.speed = SPEED
        assert (await held.send("READOUT")).status is Status.SUCCESSFUL


@slow
@pytest.mark.parametrize("link", LINKS)
async def test_engine_a_cable_pulled_at_rest_is_seen_and_mended(tmp_path: Path, link: str) -> None:
    async with engine(tmp_path / "rest.mwk", link) as held:
        held.meter.line.unplug()
        await held.until(lambda: held.link is not LinkState.ONLINE)
        await held.meter.line.plug()
        await held.until(lambda: held.link is LinkState.ONLINE)
        assert (await held.send("READOUT")).status is Status.SUCCESSFUL
