"""DLMS against software of others: gurux-dlms as the meter of our adapter, and as the client of our simulator.

gurux-dlms runs in processes of its own (``tests.peers.gurux_meter``); nothing of it is imported here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.adapters.dlms import Dlms, Pace
from app.clock import SystemClock
from app.errors import LinkError, RemoteProtocolError
from app.model.command import check_params
from app.model.device import Device
from app.model.interaction import Direction, Interaction
from app.ports import Adapter, AdapterContext, Answer, DeliveryFailure, Dispatch, Execution, Uplink
from app.secrets import SessionSecrets
from app.simulators._dlms_objects import MeterConfig
from app.simulators.dlms import (
    KEY_CLIENT,
    PASSWORD_CLIENT,
    TEST_AUTHENTICATION_KEY,
    TEST_ENCRYPTION_KEY,
    TEST_PASSWORD,
    DlmsConfig,
    DlmsMeterSimulator,
)

ROOT = Path(__file__).parents[2]
START_S = 20.0  # a Python that imports all of gurux-dlms, on a loaded machine
END_S = 10.0


@asynccontextmanager
async def peer(*arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """The lines a gurux process prints; it ends by its standard input, and has ended when this is left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.peers.gurux_meter",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise


async def said(lines: asyncio.StreamReader) -> dict[str, Any]:
    """The next line of a gurux process."""
    async with asyncio.timeout(START_S):
        line = await lines.readline()
    assert line, "the gurux process ended without a word"
    found: dict[str, Any] = json.loads(line)
    return found


# --------------------------------------------------------------------------------------- gurux reads our simulator


async def read_by_gurux(sim: DlmsMeterSimulator, *arguments: str) -> dict[str, Any]:
    host, port = sim.url.removeprefix("socket://").split(":")
    async with peer("--client", host, port, *arguments) as lines:
        return await said(lines)


KEYS = ("--address", str(KEY_CLIENT), "--keys", TEST_ENCRYPTION_KEY, TEST_AUTHENTICATION_KEY)
LOGIN = ("--address", str(PASSWORD_CLIENT), "--password", TEST_PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), ""),
        ((*LOGIN,), "text " * 300),
        pytest.param((*KEYS,), "", marks=pytest.mark.slow),
        ((*KEYS, "--ciphered"), "text " * 300),
    ],
    ids=["no security", "password", "keys", "keys and ciphers"],
)
async def test_gurux_reads_our_meter(arguments: tuple[str, ...], message: str) -> None:
    async with DlmsMeterSimulator(DlmsConfig(max_pdu=512)) as sim:
        found = await read_by_gurux(sim, *arguments, "--message", message)
        listed = {(class_id, name) for class_id, name in found["objects"]}
        assert listed == {*sim.meter.objects, (15, "0.0.40.0.0.255")}
        assert 0 <= sim.meter.import_wh(sim.clock.now) - found["energy"] <= 20
        assert found["unit"] == 30
        assert abs(datetime.fromisoformat(found["time"]) - sim.meter.now) < timedelta(seconds=START_S)
        assert found["rows_of_two_hours"] in (8, 9)
        assert found["rows_of_forty_entries"] == 40
        assert found["message"] == message
        assert sim.meter.message.decode("ascii") == message
        assert sim.requests[-1] == ("release",)


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (("--address", str(PASSWORD_CLIENT), "--password", "11111111"), {"refused": [1, 13]}),
        ((*KEYS[:3], "00" * 16, TEST_AUTHENTICATION_KEY), {"failed": "the meter answered error 3"}),
    ],
    ids=["password", "key"],
)
async def test_gurux_is_refused_by_our_meter(arguments: tuple[str, ...], outcome: dict[str, Any]) -> None:
    async with DlmsMeterSimulator() as sim:
        assert await read_by_gurux(sim, *arguments) == outcome
        assert not any(place == ("get", "1.0.1.8.0.255") for place in sim.requests)


async def test_our_meter_takes_no_counter_twice() -> None:
    async with DlmsMeterSimulator() as sim:
        first = await read_by_gurux(sim, *KEYS, "--ciphered")
        assert first["unit"] == 30
        state, service, expected = (await read_by_gurux(sim, *KEYS, "--ciphered"))["exception"]
        assert (state, service) == (2, 6)
        assert expected > 5


# ------------------------------------------------------------------------------------------------- our adapter

DEADLINE_S = 15.0
HDLC_ADDRESS: dict[str, Any] = {
    "framing": "hdlc",
    "line_format": "115200 8N1",
    "logical_device": 1,
    "physical_address": 17,
    "address_length": 2,
}
QUICK: dict[str, Any] = {"answer_s": 1, "repeats": 0, "second_s": 0.4}


@dataclass
class Bench:
    """An open adapter; ``frames`` is what it showed of the line, ``learnt`` what it told to keep."""

    kind: Dlms
    adapter: Adapter
    device: Device
    frames: list[tuple[Direction, bytes, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    told: list[Uplink] = field(default_factory=list)

    def tap(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        self.frames.append((direction, bytes(data), note))

    async def ask(self, command: str, **params: Any) -> Answer:
        spec = next(one for one in self.kind.commands(self.device, self.facts) if one.name == command)
        now = datetime.now(UTC)
        interaction = Interaction(
            id=1, device=self.device.id, adapter="dlms", command=command, kind=spec.kind, created=now, updated=now
        )
        checked = check_params(spec.params, params, command)
        assert spec.check is None or not spec.check(checked), spec.check(checked)
        request = Dispatch(
            interaction=interaction, device=self.device, spec=spec, params=checked, attempt=1, tap=self.tap
        )
        async with asyncio.timeout(DEADLINE_S):
            answer = await self.adapter.submit(request)
        assert isinstance(answer, Answer)
        self.facts.update(answer.facts)
        return answer

    async def good(self, command: str, **params: Any) -> dict[str, Any]:
        answer = await self.ask(command, **params)
        assert answer.execution is Execution.SUCCESS, answer.text
        return dict(answer.result)

    async def follow(self) -> None:
        async for uplink in self.adapter.uplinks():
            self.told.append(uplink)


@asynccontextmanager
async def bench(address: str, *, second_s: float = 1.0, **settings: Any) -> AsyncIterator[Bench]:
    """``second_s``: how long a second of the settings takes."""
    kind = Dlms(pace=Pace(second_s=second_s, goodbye_s=0.5, relay_s=0.1))
    device = Device(id="m1", name="Meter m1", adapter="dlms", settings={"address": address, **settings})
    checked = check_params(kind.form(), device.settings, "test")
    facts: dict[str, Any] = {}
    frames: list[tuple[Direction, bytes, str]] = []

    def tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        frames.append((direction, bytes(data), note))

    context = AdapterContext(
        devices=(device,), settings=checked, clock=SystemClock(), tap=tap, secrets=SessionSecrets(),
        facts=lambda _device: facts,
    )  # fmt: skip
    adapter = kind.create(context)
    held = Bench(kind, adapter, device, frames, facts)
    async with adapter.open():
        yield held


def passed_on(here: int, there: int) -> None:
    os.write(there, os.read(here, 4096))


@contextmanager
def cable() -> Iterator[tuple[str, str]]:
    """Two pseudo terminals whose other ends are joined: what one program writes, the other reads."""
    import tty  # not on Windows

    loop = asyncio.get_running_loop()
    ends = [os.openpty(), os.openpty()]
    try:
        for _, slave in ends:
            tty.setraw(slave)
        for (here, _), (there, _) in (ends, ends[::-1]):
            loop.add_reader(here, passed_on, here, there)
        yield os.ttyname(ends[0][1]), os.ttyname(ends[1][1])
    finally:
        for master, slave in ends:
            loop.remove_reader(master)
            os.close(master)
            os.close(slave)


@asynccontextmanager
async def gurux(framing: str) -> AsyncIterator[dict[str, Any]]:
    """A gurux meter, and the connection settings that reach it."""
    if framing == "wrapper":
        async with peer("--wrapper", "0") as lines:
            port = (await said(lines))["port"]
            yield {"address": f"socket://127.0.0.1:{port}", "framing": "wrapper"}
        return
    with cable() as (ours, theirs):
        async with peer("--hdlc", theirs) as lines:
            assert (await said(lines))["pty"] == theirs
            yield {"address": ours, **HDLC_ADDRESS}


FRAMINGS = [
    "wrapper",
    pytest.param("hdlc", marks=pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")),
]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_our_adapter_reads_gurux(framing: str) -> None:
    async with gurux(framing) as settings, bench(**settings) as held:
        listed = (await held.good("READ_OBJECTS"))["objects"]
        assert len(listed) == 15
        register = next(one for one in listed if one["obis"] == "1-0:1.8.0*255")
        assert (register["class"], register["version"]) == (3, 0)
        for code, value, unit in (
            ("1-0:1.8.0*255", "1234567", "Wh"),
            ("1.0.2.8.0.255", "420", "Wh"),
            ("1-0:3.8.0", "1700", "varh"),
            ("9.8.0", "5000", "VAh"),
            ("1-0:32.7.0.255", "230.1", "V"),
            ("1-0:14.7.0*255", "49.98", "Hz"),
            ("1-0:31.7.0*255", "5.123", "A"),
            ("1-0:16.7.0*255", "-250", "W"),
        ):
            found = await held.good("READ_REGISTER", obis=code)
            assert (found["value"], found["unit"]) == (value, unit), code
        rows = (await held.good("READ_REGISTERS"))["rows"]
        assert {row["obis"]: row["value"] for row in rows if row["unit"]}["1-0:31.7.0*255"] == "5.123"
        # A block transfer: 2560 octets at an APDU of 512.
        found = await held.good("READ_ATTRIBUTE", **{"class": 1, "obis": "0-0:96.1.9*255", "attribute": 2})
        assert bytes.fromhex(found["raw"])[-2560:] == b"".join(at.to_bytes(2, "big") for at in range(1280))
        refused = await held.ask("READ_ATTRIBUTE", **{"class": 3, "obis": "1-0:99.7.0*255", "attribute": 2})
        assert refused.execution is Execution.FAILURE
        assert "object undefined" in refused.text


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_our_adapter_changes_gurux(framing: str) -> None:
    async with gurux(framing) as settings, bench(**settings) as held:
        before = await held.good("READ_CLOCK")
        assert abs(before["drift_s"]) < DEADLINE_S
        wanted = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
        told = await held.good("SET_CLOCK", time=wanted)
        assert timedelta(0) <= datetime.fromisoformat(told["new_time"]) - wanted < timedelta(seconds=DEADLINE_S)
        after = await held.good("READ_CLOCK")
        assert timedelta(0) <= datetime.fromisoformat(after["meter_time"]) - wanted < timedelta(seconds=DEADLINE_S)
        told = await held.good("SET_CLOCK")
        assert abs(told["drift_after_s"]) < DEADLINE_S
        value = bytes(range(256)) * 6
        place = {"class": 1, "obis": "0-0:96.1.9*255", "attribute": 2}
        await held.good("WRITE_ATTRIBUTE", **place, type="octet-string", value=value.hex())
        found = await held.good("READ_ATTRIBUTE", **place)
        assert bytes.fromhex(found["raw"])[-len(value) :] == value
        relay = {"class": 70, "obis": "0-0:96.3.10*255", "attribute": 2}
        await held.good("DISCONNECT_SUPPLY")
        assert (await held.good("READ_ATTRIBUTE", **relay))["value"] is False
        await held.good("CONNECT_SUPPLY")
        assert (await held.good("READ_ATTRIBUTE", **relay))["value"] is True
        refused = await held.ask(
            "WRITE_ATTRIBUTE", **{"class": 3, "obis": "1-0:1.8.0*255", "attribute": 2}, type="double-long-unsigned",
            value="5",
        )  # fmt: skip
        assert refused.execution is Execution.FAILURE


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_our_adapter_reads_a_profile_of_gurux(framing: str) -> None:
    first = datetime(2026, 9, 1, 0, 15, tzinfo=UTC)
    async with gurux(framing) as settings, bench(**settings) as held:
        layout = await held.good("READ_PROFILE_INFO")
        assert (layout["period_min"], layout["entries"], len(layout["columns"])) == (15, 200, 3)
        rows = (await held.good("LOAD_PROFILE"))["rows"]
        assert len(rows) == 200
        assert rows[7]["values"] == ["1007", "230.7"]
        found = await held.good("LOAD_PROFILE", start=first + timedelta(hours=1), end=first + timedelta(hours=2))
        assert [row["values"][0] for row in found["rows"]] == [str(1004 + at) for at in range(5)]
        assert datetime.fromisoformat(found["rows"][0]["time"]).replace(tzinfo=UTC) == first + timedelta(hours=1)
        assert [channel["unit"] for channel in found["channels"]] == ["Wh", "V"]
        found = await held.good("LOAD_PROFILE", first=11, last=20)
        assert [row["values"][0] for row in found["rows"]] == [str(1010 + at) for at in range(10)]
        assert found["missing"] == 0


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_password_of_gurux(framing: str) -> None:
    async with gurux(framing) as settings:
        login = {**settings, "client": 32, "authentication": "low"}
        async with bench(**login, password="12345678") as held:
            assert (await held.good("READ_REGISTER", obis="1-0:1.8.0"))["value"] == "1234567"
        async with bench(**login, password="87654321") as held:
            text = await refusal(held, "READ_REGISTER", obis="1-0:1.8.0")
            assert "13 authentication failed" in text
            again = await refusal(held, "READ_REGISTER", obis="1-0:1.8.0")
            assert "Nothing was sent" in again
            assert "87654321" not in text + again
            shown = [(data, note) for _, data, note in held.frames]
            assert not any(b"87654321" in data or "87654321" in note for data, note in shown)
        async with bench(**login, password="12345678") as held:
            assert (await held.good("READ_REGISTER", obis="1-0:1.8.0"))["value"] == "1234567"


async def refusal(held: Bench, command: str, **params: Any) -> str:
    """The text of a command that the meter refuses, however the adapter tells it."""
    try:
        answer = await held.ask(command, **params)
    except DeliveryFailure as exc:
        return str(exc)
    assert answer.execution is Execution.FAILURE
    return answer.text


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_again_and_again_with_gurux(framing: str) -> None:
    async with gurux(framing) as settings:
        for _ in range(2):
            async with bench(**settings) as held:
                assert (await held.good("READ_REGISTER", obis="1-0:32.7.0"))["value"] == "230.1"


# ------------------------------------------------------------------------------- our adapter and our simulator


@asynccontextmanager
async def simulated(
    framing: str, *faults: str, **meter: Any
) -> AsyncIterator[tuple[DlmsMeterSimulator, dict[str, Any]]]:
    """Our meter on TCP, and the connection settings that reach it."""
    config = DlmsConfig(framing=framing, faults=faults, max_pdu=512, meter=MeterConfig(**meter))
    async with DlmsMeterSimulator(config) as sim:
        address = HDLC_ADDRESS if framing == "hdlc" else {"framing": "wrapper"}
        yield sim, {"address": sim.url, **address, **QUICK}


LOGIN_SETTINGS: dict[str, Any] = {"client": PASSWORD_CLIENT, "authentication": "low", "password": TEST_PASSWORD}
KEY_SETTINGS: dict[str, Any] = {
    "client": KEY_CLIENT,
    "authentication": "gmac",
    "cipher_key": TEST_ENCRYPTION_KEY,
    "authentication_key": TEST_AUTHENTICATION_KEY,
}


@pytest.mark.parametrize("framing", ["wrapper", "hdlc"])
@pytest.mark.parametrize(
    "login",
    [
        {},
        LOGIN_SETTINGS,
        KEY_SETTINGS,
        {**KEY_SETTINGS, "ciphering": "service"},
        {**KEY_SETTINGS, "ciphering": "general"},
    ],
    ids=["public", "password", "keys", "service", "general"],
)
async def test_our_adapter_reads_our_meter(framing: str, login: dict[str, Any]) -> None:
    async with simulated(framing) as (sim, settings), bench(**settings, **login) as held:
        listed = (await held.good("READ_OBJECTS"))["objects"]
        assert len(listed) == len(sim.meter.objects) + 1
        found = await held.good("READ_REGISTER", obis="1-0:1.8.0*255")
        assert 0 <= sim.meter.import_wh(sim.clock.now) - int(found["value"]) <= 20
        rows = {row["obis"]: row for row in (await held.good("READ_REGISTERS"))["rows"]}
        assert 215 < float(rows["1-0:32.7.0*255"]["value"]) < 245
        assert rows["1-0:9.8.0*255"]["value"].endswith("000")
        assert abs((await held.good("READ_CLOCK"))["drift_s"]) < 5
        profile = await held.good("LOAD_PROFILE")
        assert profile["missing"] == 13
        assert len(profile["rows"]) == len(sim.meter.quarters())
        assert any("power" in flag for row in profile["rows"] for flag in row.get("flags", ()))
        if login:
            await held.good("DISCONNECT_SUPPLY")
            assert not sim.meter.is_on
            await held.good("CONNECT_SUPPLY")
            assert sim.meter.is_on
        else:
            assert "denied" in (await refusal(held, "DISCONNECT_SUPPLY")).lower()
            assert sim.meter.is_on


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
async def test_our_adapter_reads_our_meter_on_a_pseudo_terminal() -> None:
    async with DlmsMeterSimulator(DlmsConfig(framing="hdlc", link="pty", baud=115200)) as sim:
        async with bench(sim.url, **HDLC_ADDRESS, **QUICK, **LOGIN_SETTINGS) as held:
            assert len((await held.good("READ_OBJECTS"))["objects"]) == len(sim.meter.objects) + 1
        async with bench(sim.url, **HDLC_ADDRESS, **QUICK) as held:
            assert abs((await held.good("READ_CLOCK"))["drift_s"]) < 5


HARMLESS = [
    ("wrapper", "slow=0.01"),
    ("wrapper", "split"),
    ("wrapper", "merged"),
    ("wrapper", "duplicate"),
    ("wrapper", "no-release"),
    ("wrapper", "bad-release"),
    ("hdlc", "slow=0.01"),
    ("hdlc", "split"),
    ("hdlc", "merged"),
    ("hdlc", "duplicate"),
    ("hdlc", "noise"),
    ("hdlc", "no-release"),
    ("hdlc", "bad-release"),
    ("hdlc", "silent@get#1"),
    ("hdlc", "silent@snrm#1"),
    ("hdlc", "silent@rr#1"),
    ("hdlc", "lose-answer#1"),
    ("hdlc", "cut#1"),
    ("hdlc", "wrong-fcs#1"),
]
FAILING = [
    ("wrapper", "silent@get", "did not answer"),
    ("wrapper", "lose-answer@get", "did not answer"),
    ("wrapper", "cut@get", "did not answer"),
    ("wrapper", "wrong-address@get", "did not answer"),
    ("wrapper", "reject-association", "rejected permanent"),
    ("wrapper", "reject-association=transient", "rejected transient"),
    ("wrapper", "busy", "2 temporary failure"),
    ("wrapper", "exception-response", "service not allowed"),
    ("wrapper", "service-error", "error of the service"),
    ("wrapper", "wrong-invoke", "belongs to another request"),
    ("wrapper", "wrong-block", "block 2, not 1"),
    ("wrapper", "drop-connection", "was closed"),
    ("hdlc", "silent", "did not answer"),
    ("hdlc", "disconnected", "not connected (DM)"),
    ("hdlc", "wrong-fcs", "did not answer"),
    ("hdlc", "wrong-address", "did not answer"),
    ("hdlc", "busy", "2 temporary failure"),
    ("hdlc", "exception-response", "service not allowed"),
    ("hdlc", "wrong-invoke", "belongs to another request"),
    ("hdlc", "wrong-block", "block 2, not 1"),
    ("hdlc", "drop-connection", "was closed"),
]


@pytest.mark.parametrize(("framing", "fault"), HARMLESS)
async def test_harmless_fault(framing: str, fault: str) -> None:
    async with simulated(framing, fault) as (sim, settings):
        for _ in range(2):
            async with bench(**settings | {"repeats": 1}) as held:
                assert len((await held.good("READ_OBJECTS"))["objects"]) == len(sim.meter.objects) + 1
                for code in ("1-0:1.8.0", "1-0:2.8.0"):
                    assert (await held.good("READ_REGISTER", obis=code))["unit"] == "Wh"


@pytest.mark.parametrize(("framing", "fault", "words"), FAILING)
async def test_fault_that_fails_a_command(framing: str, fault: str, words: str) -> None:
    """It fails in words, in time, and the next command or connection works again."""
    async with simulated(framing) as (sim, settings):
        async with bench(**settings | {"second_s": 0.25}) as held:
            sim.faults.set(fault)
            try:
                answer = await held.ask("READ_OBJECTS")
            except (DeliveryFailure, LinkError, RemoteProtocolError) as exc:
                text = str(exc)
            else:
                assert answer.execution is Execution.FAILURE
                text = answer.text
            assert words in text
            sim.faults.clear()
            if fault != "drop-connection" and framing == "hdlc":
                assert (await held.good("READ_REGISTER", obis="1-0:1.8.0"))["unit"] == "Wh"
        async with bench(**settings) as held:
            assert (await held.good("READ_REGISTER", obis="1-0:1.8.0"))["unit"] == "Wh"


@pytest.mark.parametrize("login", [LOGIN_SETTINGS, KEY_SETTINGS], ids=["password", "keys"])
async def test_refused_password_is_not_sent_again(login: dict[str, Any]) -> None:
    async with simulated("wrapper", "refuse-password") as (sim, settings), bench(**settings, **login) as held:
        for _ in range(3):
            text = await refusal(held, "READ_CLOCK")
            assert "password" in text.lower()
        assert list(sim.requests).count(("aarq",)) == 1


async def test_a_dropped_connection_ends_the_uplinks() -> None:
    async with simulated("wrapper") as (sim, settings), bench(**settings) as held:
        await held.good("READ_CLOCK")
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            followed = group.create_task(outcome(held))
            sim.unplug()
        assert isinstance(followed.result(), LinkError | None)
        await sim.plug()
    async with simulated("wrapper") as (sim, settings), bench(**settings) as held:
        await held.good("READ_CLOCK")


async def outcome(held: Bench) -> LinkError | None:
    """How the uplinks end."""
    try:
        await held.follow()
    except LinkError as exc:
        return exc
    return None


@pytest.mark.parametrize("framing", ["wrapper", "hdlc"])
async def test_long_object_list(framing: str) -> None:
    async with simulated(framing, "long-list=400") as (sim, settings), bench(**settings) as held:
        assert len((await held.good("READ_OBJECTS"))["objects"]) == len(sim.meter.objects) + 401


async def test_clock_faults() -> None:
    async with simulated("wrapper", clock_offset_s=120.0) as (sim, settings):
        async with bench(**settings, **LOGIN_SETTINGS) as held:
            assert (await held.good("READ_CLOCK"))["drift_s"] == pytest.approx(120, abs=5)
            told = await held.good("SET_CLOCK")
            assert told["drift_before_s"] == pytest.approx(120, abs=5)
            assert abs(told["drift_after_s"]) < 5
            assert abs(sim.meter.offset_s) < 5
            sim.faults.set("inverted-deviation")
            offset_h = abs((await held.good("READ_CLOCK"))["drift_s"]) / 3600
            assert offset_h == pytest.approx(2, abs=0.01) or offset_h == pytest.approx(4, abs=0.01)
            # A clock that is read the wrong way round is set the wrong way round as well.
        sim.faults.clear()
        sim.faults.set("inverted-deviation")
        async with bench(**settings, **LOGIN_SETTINGS, deviation="inverted") as held:
            assert abs((await held.good("READ_CLOCK"))["drift_s"]) < 5
            await held.good("SET_CLOCK")
            assert abs(sim.meter.offset_s) < 5


async def test_profile_that_leaves_out_what_repeats() -> None:
    async with simulated("wrapper") as (sim, settings), bench(**settings) as held:
        whole = await held.good("LOAD_PROFILE", first=100, last=400)
        sim.faults.set("null-data")
        assert (await held.good("LOAD_PROFILE", first=100, last=400))["rows"] == whole["rows"]


# ------------------------------------------------------------------------------------------- the plug, in every state

STATES = {
    "snrm": "READ_CLOCK",
    "aarq": "READ_CLOCK",
    "get": "READ_CLOCK",
    "rr": "READ_OBJECTS",  # between two segments of a long answer
    "set": "SET_CLOCK",
    "action": "DISCONNECT_SUPPLY",
}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a fault that strikes tells nobody
            await asyncio.sleep(0.005)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
@pytest.mark.parametrize("state", STATES)
async def test_the_pty_is_closed_in_every_state_and_the_port_works_again(state: str) -> None:
    login = {**HDLC_ADDRESS, "client": PASSWORD_CLIENT, "authentication": "low", "password": TEST_PASSWORD}
    async with DlmsMeterSimulator(DlmsConfig(framing="hdlc", link="pty", baud=115200)) as sim:
        async with bench(sim.url, **login) as held:
            sim.faults.set(f"silent@{state}#1")
            failed: list[LinkError] = []

            async def ask() -> None:
                with pytest.raises(LinkError) as found:
                    await held.ask(STATES[state])
                failed.append(found.value)

            async with asyncio.TaskGroup() as group:
                group.create_task(ask())
                await until(lambda: not sim.faults.active())
                sim.unplug()
            assert "gone" in str(failed[0]) or "unplugged" in str(failed[0]), str(failed[0])
            with pytest.raises(LinkError):  # the connection ends, and the pipeline opens it again
                await held.follow()
        sim.faults.clear()
        await sim.plug()
        async with bench(sim.url, **login) as again:
            assert (await again.good("READ_REGISTER", obis="1-0:1.8.0*255"))["unit"] == "Wh"
