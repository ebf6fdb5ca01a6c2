"""The DLMS adapter on virtual time over a memory line, against a scripted meter (part B)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from app.adapters import _dlms_rules as rules
from app.adapters.dlms import Dlms, Pace
from app.errors import LinkError, LinkReason
from app.model.command import CommandKind, ParamType, Resend, Risk, check_params
from app.model.device import Device
from app.model.interaction import Direction, Interaction
from app.model.jsonable import jsonable
from app.model.line import LineFormat
from app.model.reading import LinkState
from app.ports import (
    Adapter,
    AdapterContext,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    LinkChange,
    Uplink,
)
from app.protocols import dlms_objects as objects
from app.protocols import dlms_values as dv
from app.protocols.dlms_security import Cipher, Mechanism, Protection
from app.protocols.dlms_values import CosemTime, Value
from app.protocols.obis import parse
from app.secrets import SessionSecrets
from app.transports.line import Line
from app.transports.memory_line import MemoryLine, memory_line
from tests.doubles.dlms_meter import TITLE, MeterEnd, ScriptedMeter, name
from tests.pipeline.harness import EPOCH, VirtualClock, VirtualLoop, run_virtual

T = TypeVar("T")
KEY, AUTHENTICATION_KEY = bytes(range(16)), bytes(range(0xD0, 0xE0))
SERIAL_PORT: dict[str, Any] = {"address": "COM7", "physical_address": 17}
MODE_E: dict[str, Any] = {**SERIAL_PORT, "opening": "mode_e", "line_format": "300 7E1"}
NETWORK: dict[str, Any] = {"address": "socket://192.0.2.7:4059", "framing": "wrapper"}


def scaler_unit(exponent: int, unit: int) -> Value:
    return Value(dv.STRUCTURE, (Value(dv.INT8, exponent), Value(dv.ENUM, unit)))


def rights(*pairs: tuple[int, int]) -> Value:
    rows = (Value(dv.STRUCTURE, (Value(dv.INT8, a), Value(dv.ENUM, b), Value(dv.NULL))) for a, b in pairs)
    return Value(dv.ARRAY, tuple(rows))


def listed(class_id: int, obis: str, *pairs: tuple[int, int]) -> Value:
    return Value(
        dv.STRUCTURE,
        (
            Value(dv.UINT16, class_id), Value(dv.UINT8, 0), Value(dv.OCTET_STRING, parse(obis).logical_name),
            Value(dv.STRUCTURE, (rights(*pairs), Value(dv.ARRAY, ()))),
        ),
    )  # fmt: skip


def cosem_time(moment: datetime) -> Value:
    return Value(dv.OCTET_STRING, CosemTime.of(moment).encode())


def octets(text: bytes) -> Value:
    return Value(dv.OCTET_STRING, text)


def a_meter(**more: Any) -> ScriptedMeter:
    """A small electricity meter."""
    meter = ScriptedMeter(**more)
    meter.put(1, "0-0:42.0.0*255", 2, octets(b"MTR0000000000001"))
    meter.put(1, "0-0:96.1.0*255", 2, octets(b"30000001"))
    for obis, raw, exponent, unit in (
        ("1-0:1.8.0*255", 12345, -1, 30), ("1-0:32.7.0*255", 23012, -2, 35), ("1-0:14.7.0*255", 5, 1, 44),
    ):  # fmt: skip
        meter.put(3, obis, 2, Value(dv.UINT32, raw))
        meter.put(3, obis, 3, scaler_unit(exponent, unit))
    meter.put(4, "1-0:1.6.0*255", 2, Value(dv.UINT32, 42))
    meter.put(4, "1-0:1.6.0*255", 3, scaler_unit(2, 27))
    meter.put(4, "1-0:1.6.0*255", 5, cosem_time(datetime(2026, 4, 30, 18, 15, tzinfo=UTC)))
    meter.put(3, "1-0:2.8.0*255", 2, 3)
    meter.put(3, "1-0:2.8.0*255", 3, scaler_unit(0, 30))
    rows = [
        listed(15, "0-0:40.0.0*255", (2, 1)), listed(1, "0-0:42.0.0*255", (2, 1)), listed(8, "0-0:1.0.0*255", (2, 3)),
        *(listed(3, one, (2, 1), (3, 1)) for one in ("1-0:1.8.0*255", "1-0:32.7.0*255", "1-0:14.7.0*255",
                                                     "1-0:2.8.0*255")),
        listed(3, "1-0:3.8.0*255", (2, 0)), listed(4, "1-0:1.6.0*255", (2, 1)),
        listed(7, "1-0:99.1.0*255", (2, 1)), listed(70, "0-0:96.3.10*255", (2, 1)),
    ]  # fmt: skip
    meter.put(15, "0-0:40.0.0*255", 2, Value(dv.ARRAY, tuple(rows)))
    return meter


@dataclass
class Bench:
    """An adapter with its line, and the meter's end of it."""

    loop: VirtualLoop
    meter: ScriptedMeter
    end: MeterEnd
    line: MemoryLine
    adapter: Adapter
    type: Dlms
    device: Device
    frames: list[tuple[Direction, bytes, str]]
    facts: dict[str, Any] = field(default_factory=dict)
    uplinks: list[Uplink] = field(default_factory=list)

    def tap(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        self.frames.append((direction, data, note))

    def request(self, command: str, **params: Any) -> Dispatch:
        spec = next(one for one in self.type.commands(self.device, self.facts) if one.name == command)
        checked = check_params(spec.params, params, command)
        assert spec.check is None or spec.check(checked) == "", spec.check(checked)
        interaction = Interaction(
            id=1, device=self.device.id, adapter="dlms", command=command, kind=spec.kind, created=EPOCH, updated=EPOCH
        )  # fmt: skip
        return Dispatch(
            interaction=interaction, device=self.device, spec=spec, params=checked, attempt=1, tap=self.tap
        )  # fmt: skip

    async def submit(self, command: str, **params: Any) -> Answer:
        answer = await self.adapter.submit(self.request(command, **params))
        assert isinstance(answer, Answer)
        json.dumps(jsonable(answer.result))
        self.facts |= answer.facts
        return answer

    @property
    def sent(self) -> bytes:
        return b"".join(data for _direction, data, _note in self.frames)


@asynccontextmanager
async def bench(
    loop: VirtualLoop,
    meter: ScriptedMeter | None = None,
    settings: Mapping[str, Any] = SERIAL_PORT,
    *,
    adapter_type: Dlms | None = None,
    facts: Mapping[str, Any] | None = None,
    second: Device | None = None,
    is_paced: bool = True,
) -> AsyncIterator[Bench]:
    device = Device(id="m-1", name="the meter", adapter="dlms", settings=settings)
    ours, theirs = memory_line(LineFormat.parse(str(settings.get("line_format", "9600 8N1"))), is_paced=is_paced)

    async def opener(address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
        assert (address, whose) == (settings["address"], "the meter")
        return ours

    if settings.get("framing") == "wrapper":
        ours.has_rate = theirs.has_rate = False
    found = adapter_type if adapter_type is not None else Dlms(pace=Pace())
    found._open_line = opener
    meter = meter if meter is not None else a_meter()
    end = MeterEnd(meter, theirs, framing=str(settings.get("framing", "hdlc")))
    devices = (device,) if second is None else (device, second)
    each = {one.id: check_params(found.form(), one.settings, "the form") for one in devices}
    frames: list[tuple[Direction, bytes, str]] = []
    known = dict(facts or {})
    made = Bench(loop, meter, end, ours, None, found, device, frames, known)  # type: ignore[arg-type]
    context = AdapterContext(
        devices=devices, settings=each["m-1"], each=each, clock=VirtualClock(loop), tap=made.tap,
        secrets=SessionSecrets(), facts=lambda _device: made.facts,
    )  # fmt: skip
    made.adapter = found.create(context)

    async def play() -> None:
        with contextlib.suppress(LinkError):
            await end.run()

    async def listen() -> None:
        with contextlib.suppress(LinkError):
            async for uplink in made.adapter.uplinks():
                made.uplinks.append(uplink)
                if isinstance(uplink, Facts):
                    made.facts |= uplink.facts

    async with asyncio.TaskGroup() as group:
        meters = group.create_task(play())
        async with made.adapter.open():
            group.create_task(listen())
            yield made
        meters.cancel()


def play(
    scene: Callable[[Bench], Awaitable[T]],
    meter: ScriptedMeter | None = None,
    settings: Mapping[str, Any] = SERIAL_PORT,
    **more: Any,
) -> T:
    """Run a scene on virtual time."""

    async def main(loop: VirtualLoop) -> T:
        async with bench(loop, meter, settings, **more) as made:
            return await scene(made)

    return run_virtual(main)


# --- the static side ----------------------------------------------------------------------------------------------


def test_the_program_starts_without_the_library() -> None:
    import subprocess
    import sys

    slow = "{'dlms_cosem', 'serial', 'cryptography'}"
    code = f"import app.adapters.dlms, sys; sys.exit(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_has_its_risk() -> None:
    device = Device(id="m-1", name="the meter", settings=SERIAL_PORT)
    for spec in Dlms().commands(device, {}):
        assert spec.answer_timeout_s is not None
        if spec.kind is not CommandKind.READ:
            assert spec.resend is Resend.NEVER
            assert spec.risk >= (Risk.WRITE if spec.name == "SET_CLOCK" else Risk.DANGEROUS)
            assert spec.warning
    secret = {spec.name for spec in Dlms().form() if spec.type is ParamType.SECRET}
    assert secret == {"password", "cipher_key", "authentication_key"}


def test_meters_on_one_line_share_it() -> None:
    one, other = (Device(id=i, name=i, settings={"address": "socket://192.0.2.7:4059"}) for i in ("a", "b"))
    assert Dlms().connection(one) == Dlms().connection(other) == Dlms().lane(one)
    assert Dlms().limits(one.settings).max_in_flight == 1
    Dlms().limits({})
    assert Dlms().connection(Device(id="c", name="c")) == "c"


@pytest.mark.parametrize(
    ("command", "params", "words"),
    [
        ("READ_REGISTER", {"obis": "energy"}, "no OBIS code"),
        ("LOAD_PROFILE", {"obis": "1-0:99.1.0", "start": EPOCH, "first": 1}, "not both"),
        ("LOAD_PROFILE", {"obis": "1-0:99.1.0", "start": EPOCH, "end": EPOCH - timedelta(1)}, "before the start"),
        ("LOAD_PROFILE", {"obis": "1-0:99.1.0", "first": 3, "last": 2}, "before the first"),
        ("WRITE_ATTRIBUTE", {"obis": "1-0:99.1.0", "type": "unsigned", "value": "256"}, "outside its range"),
        ("CALL_METHOD", {"obis": "1-0:99.1.0", "type": "integer", "value": "x"}, "no whole number"),
    ],
)
def test_parameters_that_do_not_go_together(command: str, params: dict[str, Any], words: str) -> None:
    spec = next(one for one in rules.commands(SERIAL_PORT) if one.name == command)
    assert spec.check is not None
    assert words in spec.check(params)


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [SERIAL_PORT, NETWORK])
@pytest.mark.parametrize("block", [0, 20])
def test_a_register_over_both_framings(settings: dict[str, Any], block: int) -> None:
    async def scene(made: Bench) -> Answer:
        return await made.submit("READ_REGISTER", obis="1-0:1.8.0")

    answer = play(scene, a_meter(block=block), settings)
    assert answer.result == {
        "obis": "1-0:1.8.0", "name": "Energy import", "value": "1234.5", "unit": "Wh", "values": ["1234.5*Wh"],
        "raw": "0600003039",
    }  # fmt: skip
    (sample,) = answer.samples
    assert [(quantity.name, str(value)) for quantity, value in sample.values] == [("energy_import", "1234.5")]


def test_the_class_is_found_out() -> None:
    async def scene(made: Bench) -> tuple[Answer, Answer, Answer]:
        return (
            await made.submit("READ_REGISTER", obis="1-0:1.6.0*255"),
            await made.submit("READ_REGISTER", obis="0-0:96.1.0*255"),
            await made.submit("READ_REGISTER", obis="1-0:9.9.9*255"),
        )

    extended, data, nothing = play(scene)
    assert extended.result["values"] == ["4200*W", "2026-04-30 18:15:00"]
    assert data.result["value"] == "30000001"
    assert nothing.execution is Execution.FAILURE
    assert nothing.code == "OBJECT_UNDEFINED"
    assert "object undefined" in nothing.text


def test_all_registers_in_the_shape_of_a_readout() -> None:
    async def scene(made: Bench) -> tuple[Answer, int, Answer]:
        first = await made.submit("READ_REGISTERS")
        lists = sum(frame[2].startswith("GET 2 of 0-0:40.0.0*255") for frame in made.frames)
        return first, lists, await made.submit("READ_REGISTERS")

    answer, lists, again = play(scene)
    assert answer.execution is Execution.SUCCESS
    assert answer.result["summary"] == "4 values"
    assert answer.result["identification"] == "MTR0000000000001"
    assert answer.result["meter_serial"] == "30000001"
    assert [(row["obis"], row["value"], row["unit"]) for row in answer.result["rows"]] == [
        ("1-0:1.8.0*255", "1234.5", "Wh"), ("1-0:32.7.0*255", "230.12", "V"), ("1-0:14.7.0*255", "50", "Hz"),
        ("1-0:1.6.0*255", "4200", "W"),
    ]  # fmt: skip
    assert len(answer.result["damages"]) == 1
    assert "read write denied" in answer.result["damages"][0]
    assert "1 of 5 registers" in answer.text
    assert lists >= 1
    assert answer.facts["objects"]["classes"]["4"] == ["1-0:1.6.0*255"]
    assert "1-0:3.8.0*255" not in answer.facts["objects"]["classes"]["3"]
    assert {quantity.name for quantity, _value in answer.samples[0].values} == {
        "energy_import", "voltage_l1", "frequency", "demand_max_import",
    }  # fmt: skip
    assert again.result["rows"] == answer.result["rows"]
    assert "objects" not in again.facts


def test_the_object_list() -> None:
    async def scene(made: Bench) -> Answer:
        return await made.submit("READ_OBJECTS")

    answer = play(scene, a_meter(block=50))
    assert answer.result["summary"] == "11 objects, 6 registers, 1 profiles"
    assert answer.result["objects"][3]["attributes"] == [
        {"index": 2, "name": "value", "access": "read"}, {"index": 3, "name": "scaler and unit", "access": "read"},
    ]  # fmt: skip


def test_attributes_of_any_class() -> None:
    async def scene(made: Bench) -> list[Answer]:
        return [
            await made.submit("READ_ATTRIBUTE", **{"class": 3}, obis="1-0:32.7.0*255", attribute=2),
            await made.submit("READ_ATTRIBUTE", **{"class": 3}, obis="1-0:32.7.0*255", attribute=3),
            await made.submit("READ_ATTRIBUTE", **{"class": 1}, obis="0-0:42.0.0*255"),
        ]

    value, scaler, text = play(scene)
    assert (value.result["value"], value.result["unit"]) == ("230.12", "V")
    assert value.result["type"] == "double-long-unsigned"
    assert value.result["attribute_name"] == "value"
    assert (scaler.result["value"], scaler.result["raw"]) == ([-2, 35], "02020ffe1623")
    assert text.result["value"] == "MTR0000000000001"
    assert text.result["class_name"] == "Data"


# --- clock --------------------------------------------------------------------------------------------------------


def clock_meter(deviation: int | None = -120, *, ahead_s: float = 37.0) -> ScriptedMeter:
    """A clock two hours east, or without deviation."""
    meter = a_meter()
    local = EPOCH + timedelta(seconds=ahead_s, hours=2)
    octets_ = CosemTime.of(local.replace(tzinfo=None)).encode()
    if deviation is not None:
        octets_ = octets_[:9] + deviation.to_bytes(2, "big", signed=True) + b"\x80"
    meter.put(8, "0-0:1.0.0*255", 2, octets(octets_))
    return meter


def test_the_clock_with_drift() -> None:
    async def scene(made: Bench) -> Answer:
        return await made.submit("READ_CLOCK")

    answer = play(scene, clock_meter(), is_paced=False)
    assert answer.result["meter_time"] == "2026-05-01T02:00:37+02:00"
    assert answer.result["drift_s"] == 37.0
    assert answer.result["summary"] == "37 s ahead"
    assert answer.result["summer_time"] is True
    assert answer.facts == {"meter_time": "2026-05-01T02:00:37+02:00"}
    inverted = play(scene, clock_meter(120), {**SERIAL_PORT, "deviation": "inverted"}, is_paced=False)
    assert inverted.result["drift_s"] == 37.0
    doubted = play(scene, clock_meter(120), is_paced=False)
    assert doubted.result["drift_s"] > 14000
    assert "the other way round" in doubted.text


def test_setting_the_clock_shows_old_and_new() -> None:
    async def scene(made: Bench) -> tuple[Answer, CosemTime]:
        answer = await made.submit("SET_CLOCK")
        return answer, CosemTime.decode(made.meter.values[8, name("0-0:1.0.0*255"), 2].content)  # type: ignore[union-attr]

    answer, kept = play(scene, clock_meter(), is_paced=False)
    assert answer.result["old_time"] == "2026-05-01T02:00:37+02:00"
    assert answer.result["new_time"] == "2026-05-01T02:00:00+02:00"
    assert answer.result["drift_before_s"] == 37.0
    assert abs(answer.result["drift_after_s"]) < 1
    assert kept.deviation == -120
    assert kept.status == 0x80


def test_setting_the_clock_to_a_time_without_deviation() -> None:
    wanted = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)

    async def scene(made: Bench) -> tuple[Answer, Answer | None]:
        request = made.request("SET_CLOCK", time=wanted)
        answer = await made.adapter.submit(request)
        assert isinstance(answer, Answer)
        return answer, await made.adapter.verify(request)

    answer, verified = play(scene, clock_meter(None), is_paced=False)
    assert answer.result["new_time"] == wanted.astimezone().replace(tzinfo=None).isoformat()
    assert verified is not None
    assert verified.execution is Execution.SUCCESS


def test_an_outcome_that_nobody_saw_is_read_back() -> None:
    async def scene(made: Bench) -> tuple[LinkError, Answer | None, Answer | None]:
        await made.submit("READ_CLOCK")
        made.meter.before = lambda apdu: b"" if apdu[0] == 0xC1 else None
        with pytest.raises(LinkError) as silent:
            await made.submit("SET_CLOCK")
        request = made.request("SET_CLOCK")
        unset = await made.adapter.verify(request)
        made.meter.put(8, "0-0:1.0.0*255", 2, cosem_time(EPOCH + timedelta(seconds=made.loop.time())))
        return silent.value, unset, await made.adapter.verify(request)

    error, unset, is_set = play(scene, clock_meter(ahead_s=600), is_paced=False)
    assert error.reason is LinkReason.SILENT
    assert error.may_have_arrived
    assert unset is not None
    assert unset.execution is Execution.FAILURE
    assert is_set is not None
    assert is_set.execution is Execution.SUCCESS


# --- writing, methods, supply -------------------------------------------------------------------------------------


def test_writing_an_attribute_and_what_verifies_it() -> None:
    async def scene(made: Bench) -> tuple[Answer, Answer, Answer | None, Answer | None]:
        write: dict[str, Any] = {"class": 1, "obis": "0-0:96.1.0*255", "type": "octet-string"}
        done = await made.submit("WRITE_ATTRIBUTE", **write, value="4E4557")
        refused = await made.submit("WRITE_ATTRIBUTE", **{**write, "obis": "0-0:96.9.9*255"}, value="00")
        return (
            done, refused,
            await made.adapter.verify(made.request("WRITE_ATTRIBUTE", **write, value="4E4557")),
            await made.adapter.verify(made.request("WRITE_ATTRIBUTE", **write, value="00")),
        )  # fmt: skip

    done, refused, same, other = play(scene)
    assert done.result["value"] == "NEW"
    assert refused.code == "OBJECT_UNDEFINED"
    assert same is not None
    assert same.execution is Execution.SUCCESS
    assert other is not None
    assert other.execution is Execution.FAILURE


def relay_meter(state: int = 1, *, moves: bool = True, output: bool = True) -> ScriptedMeter:
    meter = a_meter()
    meter.put(70, "0-0:96.3.10*255", 2, Value(dv.BOOLEAN, output))
    meter.put(70, "0-0:96.3.10*255", 3, Value(dv.ENUM, state))

    def to(method: int) -> Callable[[Value | None], None]:
        def act(parameter: Value | None) -> None:
            assert parameter == Value(dv.INT8, 0)
            if moves:
                meter.put(70, "0-0:96.3.10*255", 2, Value(dv.BOOLEAN, method == 2))
                meter.put(70, "0-0:96.3.10*255", 3, Value(dv.ENUM, method - 1))

        return act

    for method in (1, 2):
        meter.methods[70, objects.DISCONNECT_NAME.hex(), method] = to(method)
    return meter


def test_the_supply_is_switched_and_its_state_read() -> None:
    async def scene(made: Bench) -> tuple[Answer, Answer]:
        return await made.submit("DISCONNECT_SUPPLY"), await made.submit("CONNECT_SUPPLY")

    off, on = play(scene, relay_meter())
    assert (off.result["output"], off.result["state"]) == (False, "disconnected")
    assert (on.result["output"], on.result["state"]) == (True, "connected")
    assert off.execution is on.execution is Execution.SUCCESS
    assert off.facts == {"supply": "off"}


def test_a_relay_that_does_not_move_or_waits_for_a_button() -> None:
    async def off(made: Bench) -> Answer:
        return await made.submit("DISCONNECT_SUPPLY")

    async def on(made: Bench) -> Answer:
        return await made.submit("CONNECT_SUPPLY")

    stuck = play(off, relay_meter(moves=False))
    assert stuck.execution is Execution.FAILURE
    assert stuck.code == "NO_EFFECT"
    ready = play(on, relay_meter(2, moves=False, output=False))
    assert ready.execution is Execution.SUCCESS
    assert "press its button" in ready.text


def test_methods() -> None:
    meter = a_meter()
    meter.methods[3, name("1-0:1.8.0*255"), 1] = lambda parameter: parameter

    async def scene(made: Bench) -> tuple[Answer, Answer]:
        call: dict[str, Any] = {"class": 3, "obis": "1-0:1.8.0*255"}
        return (
            await made.submit("CALL_METHOD", **call, method=1, type="integer", value="0"),
            await made.submit("CALL_METHOD", **call, method=2),
        )

    done, refused = play(scene, meter)
    assert done.result["method_name"] == "reset"
    assert done.result["value"] == 0
    assert refused.execution is Execution.FAILURE


# --- profiles -----------------------------------------------------------------------------------------------------

CLOCK_COLUMN = objects.Column(8, parse("0-0:1.0.0*255"), 2)
STATUS_COLUMN = objects.Column(1, parse("0-0:96.10.1*255"), 2)
ENERGY_COLUMN = objects.Column(3, parse("1-0:1.8.0*255"), 2)


def structure(*parts: Value) -> Value:
    return Value(dv.STRUCTURE, parts)


def profile_meter(**more: Any) -> tuple[ScriptedMeter, list[bytes]]:
    """Quarter hours with null-data, a gap, and a status; and the selections that were asked for."""
    meter = a_meter(**more)
    base = datetime(2026, 5, 1, 0, 0, tzinfo=UTC).astimezone().replace(tzinfo=None)
    null = Value(dv.NULL)

    def at(minutes: int) -> Value:
        return cosem_time(base + timedelta(minutes=minutes))

    rows = (
        structure(at(0), Value(dv.UINT8, 0), Value(dv.UINT32, 100)),
        structure(null, null, Value(dv.UINT32, 105)),
        structure(null, Value(dv.UINT8, 0x88), null),
        structure(at(75), Value(dv.UINT8, 0), Value(dv.UINT32, 120)),
    )
    asked: list[bytes] = []

    def buffer(access: bytes) -> Value:
        asked.append(access)
        return Value(dv.ARRAY, rows)

    meter.values[7, name("1-0:99.1.0*255"), 2] = buffer
    columns = tuple(column.value() for column in (CLOCK_COLUMN, STATUS_COLUMN, ENERGY_COLUMN))
    meter.put(7, "1-0:99.1.0*255", 3, Value(dv.ARRAY, columns))
    meter.put(7, "1-0:99.1.0*255", 4, Value(dv.UINT32, 900))
    meter.put(7, "1-0:99.1.0*255", 7, Value(dv.UINT32, 4))
    meter.put(7, "1-0:99.1.0*255", 8, Value(dv.UINT32, 4000))
    return meter, asked


def test_a_load_profile_with_null_data_gap_and_status() -> None:
    meter, asked = profile_meter(block=30)

    async def scene(made: Bench) -> Answer:
        return await made.submit("LOAD_PROFILE", first=1)

    answer = play(scene, meter)
    result = answer.result
    assert result["profile"] == "1-0:99.1.0*255"
    assert result["channels"] == [{"obis": "1-0:1.8.0*255", "name": "Energy import", "unit": "Wh"}]
    assert result["period_min"] == 15
    assert result["missing"] == 2
    assert result["summary"] == "4 periods of 15 min, 2 missing"
    base = datetime(2026, 5, 1, 0, 0, tzinfo=UTC).astimezone().replace(tzinfo=None)
    assert [row["time"] for row in result["rows"]] == [
        (base + timedelta(minutes=minutes)).isoformat(" ") for minutes in (0, 15, 30, 75)
    ]  # fmt: skip
    assert [row["values"] for row in result["rows"]] == [["10.0"], ["10.5"], ["10.5"], ["12.0"]]
    assert [row["status"] for row in result["rows"]] == ["00", "00", "88", "00"]
    assert result["rows"][2]["flags"] == ["power down", "summer time"]
    assert "flags" not in result["rows"][0]
    assert len(answer.samples) == 4
    assert answer.samples[0].meter_time == datetime(2026, 5, 1, tzinfo=UTC)
    assert answer.samples[0].values[0][0].name == "profile_energy_import"
    assert asked[0].hex().upper().startswith("0102020406000000010600000000")


def test_a_profile_by_time_in_the_meters_own_time() -> None:
    meter, asked = profile_meter()
    meter.put(8, "0-0:1.0.0*255", 2, octets(CosemTime.of(EPOCH.replace(tzinfo=None)).encode()[:9] + b"\xff\x88\x80"))

    async def scene(made: Bench) -> Answer:
        return await made.submit("LOAD_PROFILE", start="2026-05-01T00:00:00Z", end="2026-05-01T06:00:00Z")

    answer = play(scene, meter)
    assert answer.execution is Execution.SUCCESS
    assert asked[0][:2] == b"\x01\x01"
    assert asked[0][2:].hex().startswith("02040204120008")
    assert bytes.fromhex("090C07EA05010502000000FF8880") in asked[0]
    assert bytes.fromhex("090C07EA05010508000000FF8880") not in asked[0][:40]


def test_a_whole_profile_and_its_layout() -> None:
    meter, asked = profile_meter()

    async def scene(made: Bench) -> tuple[Answer, Answer]:
        return await made.submit("LOAD_PROFILE"), await made.submit("READ_PROFILE_INFO")

    whole, info = play(scene, meter)
    assert len(whole.result["rows"]) == 4
    assert asked == [b"\0"]
    assert info.result["summary"] == "3 columns every 15 min, 4 of 4000 entries"
    assert [column["name"] for column in info.result["columns"]] == ["Clock", "Status", "Energy import"]


def test_rows_of_another_form_are_told() -> None:
    layout = rules.Layout(parse("1-0:99.1.0*255"), (CLOCK_COLUMN, ENERGY_COLUMN), 900)
    buffer = Value(dv.ARRAY, (structure(Value(dv.NULL)), structure(Value(dv.NULL), Value(dv.UINT8, 1))))
    made = rules.profile_answer(buffer, layout, is_inverted=False, device="m-1", interaction=None)
    assert made.result["rows"] == [{"time": "", "status": "", "values": ["1"]}]
    assert "1 rows have another number" in made.doubts[0]


# --- association --------------------------------------------------------------------------------------------------


def test_an_association_is_kept_while_used_and_released_when_idle() -> None:
    async def scene(made: Bench) -> tuple[int, list[str], int]:
        await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        kept = made.meter.associations
        await asyncio.sleep(40)
        frames = list(made.end.frames)
        await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        return kept, frames, made.meter.associations

    kept, frames, after = play(scene)
    assert kept == 1
    assert frames[-1] == "DISC"
    assert frames.count("SNRM") == 1
    assert after == 2


def test_leaving_gives_the_port_back_whatever_the_meter_does() -> None:
    async def main(loop: VirtualLoop) -> float:
        async with bench(loop, clock_meter()) as made:
            await made.submit("READ_CLOCK")
            made.end.is_silent = True
            before = loop.time()
        return loop.time() - before

    assert run_virtual(main) < 1.0


def test_leaving_releases_and_gives_the_port_back() -> None:
    made_of: list[Bench] = []

    async def scene(made: Bench) -> None:
        made_of.append(made)
        await made.submit("READ_CLOCK")

    play(scene, clock_meter())
    (made,) = made_of
    assert made.end.frames[-1] == "DISC"
    assert made.meter.heard[-1][0] == 0x62
    assert made.uplinks[0] == LinkChange("m-1", LinkState.ONLINE)


def test_a_meter_that_forgot_the_link_is_associated_again() -> None:
    async def scene(made: Bench) -> tuple[Answer, int]:
        await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        made.end.is_connected = False  # its inactivity time is over
        return await made.submit("READ_REGISTER", obis="1-0:32.7.0*255"), made.meter.associations

    answer, associations = play(scene)
    assert answer.result["value"] == "230.12"
    assert associations == 2


def test_a_meter_that_forgot_the_association_only() -> None:
    async def scene(made: Bench) -> tuple[Answer, int]:
        await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        made.meter.is_associated = False
        return await made.submit("READ_REGISTER", obis="1-0:32.7.0*255"), made.meter.associations

    answer, associations = play(scene, None, NETWORK)
    assert answer.result["value"] == "230.12"
    assert associations == 2


def test_a_lost_answer_is_asked_for_again_and_counted_once() -> None:
    async def scene(made: Bench) -> Answer:
        await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        made.end.drop = 1
        return await made.submit("DISCONNECT_SUPPLY")

    calls: list[object] = []
    meter = relay_meter()
    act = meter.methods[70, objects.DISCONNECT_NAME.hex(), 1]

    def counted(parameter: Value | None) -> Value | int | None:
        calls.append(parameter)
        return act(parameter)

    meter.methods[70, objects.DISCONNECT_NAME.hex(), 1] = counted
    answer = play(scene, meter)
    assert answer.result["output"] is False
    assert len(calls) == 1


@pytest.mark.parametrize("settings", [SERIAL_PORT, NETWORK])
def test_a_silent_meter_is_a_clear_failure(settings: dict[str, Any]) -> None:
    async def scene(made: Bench) -> tuple[LinkError, float]:
        made.end.is_silent = True
        with pytest.raises(LinkError) as silent:
            await made.submit("READ_CLOCK")
        return silent.value, made.loop.time()

    error, seconds = play(scene, None, settings)
    assert error.reason is LinkReason.SILENT
    assert not error.may_have_arrived
    assert "the meter did not answer on memory" in str(error)
    assert "Check port" in str(error)
    assert 4.9 < seconds < 16


def test_noise_does_not_hold_a_request_for_ever() -> None:
    async def scene(made: Bench) -> float:
        made.end.is_silent = True

        async def babble() -> None:
            while True:
                await asyncio.sleep(0.5)
                await made.end.line.write(b"\x7e\xa0babble")

        async with asyncio.TaskGroup() as group:
            noise = group.create_task(babble())
            with pytest.raises(LinkError):
                await made.submit("READ_CLOCK")
            noise.cancel()
        return made.loop.time()

    assert play(scene) < 60


def test_pulling_the_plug_ends_the_command_and_the_link() -> None:
    async def main(loop: VirtualLoop) -> tuple[LinkError, list[Uplink]]:
        async with bench(loop, clock_meter()) as made:
            made.meter.before = lambda _apdu: b""
            async with asyncio.TaskGroup() as group:
                task = group.create_task(caught(made.submit("READ_CLOCK")))
                await asyncio.sleep(1)
                made.line.unplug()
                error = await task
            await asyncio.sleep(2)
            return error, made.uplinks

    error, uplinks = run_virtual(main)
    assert error.reason is LinkReason.CLOSED
    assert uplinks == [LinkChange("m-1", LinkState.ONLINE)]


async def caught(awaitable: Awaitable[object]) -> LinkError:
    with pytest.raises(LinkError) as found:
        await awaitable
    return found.value


def test_a_cancelled_command_over_hdlc_begins_anew() -> None:
    async def scene(made: Bench) -> tuple[Answer, int]:
        await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        made.end.wait_s = 3.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        made.end.wait_s = 0.0
        await asyncio.sleep(5)
        return await made.submit("READ_REGISTER", obis="1-0:32.7.0*255"), made.meter.associations

    answer, associations = play(scene)
    assert answer.result["value"] == "230.12"
    assert associations == 2


def test_a_cancelled_command_over_the_wrapper_closes_the_line() -> None:
    async def scene(made: Bench) -> LinkError:
        made.end.wait_s = 3.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await made.submit("READ_CLOCK")
        await made.line.wait_closed()
        return await caught(made.submit("READ_CLOCK"))

    assert play(scene, None, NETWORK).reason is LinkReason.CLOSED


def test_the_reason_of_a_line_that_was_closed_here_is_said() -> None:
    async def main(loop: VirtualLoop) -> str:
        async with bench(loop, None, NETWORK) as made:
            made.end.is_silent = True
            await caught(made.submit("READ_CLOCK"))
            with pytest.raises(LinkError) as found:
                async for _uplink in made.adapter.uplinks():
                    pass
            return str(found.value)

    assert "connection is made anew" in run_virtual(main)


# --- passwords and keys -------------------------------------------------------------------------------------------

PASSWORD = {**SERIAL_PORT, "authentication": "low", "password": "s3cret-pass", "client": 32}


@pytest.mark.parametrize("more", [{}, {"max_frame": 32}, {"framing": "wrapper", "address": "socket://192.0.2.7:4059"}])
def test_a_password_opens_and_is_never_shown(more: dict[str, Any]) -> None:
    async def scene(made: Bench) -> tuple[Answer, bytes, list[str]]:
        made.line.echoes = not more
        answer = await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        heard = b"".join(data for direction, data, _note in made.frames if direction is Direction.IN)
        assert bytes.fromhex("A203020100") in heard  # the answer to the association is shown
        return answer, made.sent, made.end.frames

    meter = a_meter(mechanism=Mechanism.LOW, secret=b"s3cret-pass")
    answer, seen, frames = play(scene, meter, {**PASSWORD, **more})
    assert answer.result["value"] == "1234.5"
    assert any(b"s3cret-pass" in apdu for apdu in meter.heard)
    assert b"[redacted]" in seen
    for size in range(3, 12):
        for start in range(12 - size):
            assert b"s3cret-pass"[start : start + size] not in seen
    if "max_frame" in more:
        assert "I 0/0 segment" in frames


def test_a_refused_password_is_final_and_not_tried_again() -> None:
    adapter_type = Dlms()

    async def scene(made: Bench) -> tuple[Answer, Answer]:
        return await made.submit("READ_CLOCK"), await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")

    meter = a_meter(mechanism=Mechanism.LOW, secret=b"another")
    first, second = play(scene, meter, PASSWORD, adapter_type=adapter_type)
    assert first.code == second.code == "AUTHENTICATION_FAILED"
    assert first.execution is second.execution is Execution.FAILURE
    assert "13 authentication failed" in first.text
    assert "Nothing was sent" in second.text
    assert meter.associations == 1
    third, _fourth = play(scene, meter, PASSWORD, adapter_type=adapter_type)  # the link came back
    assert "Nothing was sent" in third.text
    assert meter.associations == 1
    right = a_meter(mechanism=Mechanism.LOW, secret=b"corrected")
    _clock, value = play(scene, right, {**PASSWORD, "password": "corrected"}, adapter_type=adapter_type)
    assert value.execution is Execution.SUCCESS
    for answer in (first, second, third):
        assert "s3cret-pass" not in answer.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"authentication": "manufacturer"}, "Mechanism 2"),
        ({"authentication": "ecdsa"}, "Mechanism 7"),
        ({"authentication": "low"}, "password"),
        ({"authentication": "low", "password": "0xzz"}, "no hex"),
        ({"ciphering": "service"}, "cipher_key"),
        ({"physical_address": 200, "address_length": 2}, "does not fit"),
        ({"client": 300}, "one octet"),
    ],
)
def test_settings_that_cannot_work_are_final(settings: dict[str, Any], words: str) -> None:
    async def scene(made: Bench) -> DeliveryFailure:
        with pytest.raises(DeliveryFailure) as failed:
            await made.submit("READ_CLOCK")
        return failed.value

    failure = play(scene, None, {**SERIAL_PORT, **settings})
    assert failure.disposition is Disposition.FINAL
    assert words in str(failure)


@pytest.mark.parametrize("ciphering", ["service", "general"])
@pytest.mark.parametrize("authentication", ["low", "gmac", "sha256", "md5"])
def test_ciphered_associations_and_the_counter_that_goes_on(ciphering: str, authentication: str) -> None:
    mechanism = {"low": 1, "md5": 3, "gmac": 5, "sha256": 6}[authentication]
    settings = {
        **NETWORK, "authentication": authentication, "password": "secret", "ciphering": ciphering,
        "cipher_key": KEY.hex(), "authentication_key": AUTHENTICATION_KEY.hex(),
    }  # fmt: skip

    async def scene(made: Bench) -> tuple[Answer, dict[str, Any], bytes]:
        answer = await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        await asyncio.sleep(3)
        return answer, made.facts, made.sent

    meter = a_meter(
        mechanism=Mechanism(mechanism), secret=b"secret", cipher=Cipher(TITLE, KEY, AUTHENTICATION_KEY),
        protection=Protection.GENERAL if ciphering == "general" else Protection.SERVICE, block=3,
    )  # fmt: skip
    answer, facts, seen = play(scene, meter, settings)
    assert answer.result["value"] == "1234.5"
    assert KEY not in seen
    assert AUTHENTICATION_KEY not in seen
    counter = facts["invocation_counter"]
    assert counter >= 4
    assert meter.cipher is not None
    heard = meter.cipher.peer_counter
    assert heard == counter - 1
    _answer, later, _seen = play(scene, meter, settings, facts=facts)
    assert later["invocation_counter"] > counter


# --- several meters, optical head ---------------------------------------------------------------------------------


def test_two_meters_on_one_line_have_associations_of_their_own() -> None:
    other = Device(id="m-2", name="the other", adapter="dlms", settings={**SERIAL_PORT, "physical_address": 18})

    async def scene(made: Bench) -> tuple[Answer, LinkError, Answer]:
        first = await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        request = made.request("READ_CLOCK")
        elsewhere = Dispatch(
            interaction=request.interaction, device=other, spec=request.spec, params=request.params, attempt=1,
            tap=made.tap,
        )  # fmt: skip
        error = await caught(made.adapter.submit(elsewhere))
        return first, error, await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")

    first, error, again = play(scene, second=other)
    assert "the other did not answer" in str(error)
    assert first.result == again.result


async def optical_head(line: MemoryLine) -> None:
    """A meter's sign-on of mode E, until HDLC begins."""
    heard = b""
    while b"!\r\n" not in heard:
        heard += await line.read()
    await asyncio.sleep(0.3)
    await line.write(b"/MTR5\\2METER\r\n")
    option = b""
    while not option.endswith(b"\r\n"):
        option += await line.read()
    assert option == b"\x06252\r\n"
    await asyncio.sleep(0.25)
    await line.write(b"\x06252\r\n")
    await line.set_format(LineFormat(9600))


def test_an_optical_head_opens_by_mode_e() -> None:
    async def scene(made: Bench) -> tuple[Answer, list[LineFormat], LineFormat]:
        made.end.prelude = optical_head
        answer = await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        return answer, [shape for _at, shape in made.line.formats], made.line.format

    answer, formats, now = play(scene, None, MODE_E)
    assert answer.result["value"] == "1234.5"
    assert formats[0] == LineFormat(300, 7, "E")
    assert formats[-1] == now == LineFormat(9600)


BREAK = b"\x01B0\x03q"


def test_a_sign_on_of_mode_e_waits_until_the_line_is_quiet() -> None:
    """What is still on its way is shown, belongs to nothing, and is not talked into."""

    async def scene(made: Bench) -> tuple[Answer, list[tuple[Direction, bytes, str]], float, float]:
        spoke_until = 0.0
        is_speaking = asyncio.Event()

        async def talkative(line: MemoryLine) -> None:
            nonlocal spoke_until
            for _ in range(3):
                await line.write(b"stray ")
                spoke_until = made.loop.time()
                is_speaking.set()
                await asyncio.sleep(1)
            await optical_head(line)

        made.end.prelude = talkative
        await is_speaking.wait()
        answer = await made.submit("READ_REGISTER", obis="1-0:1.8.0*255")
        return answer, made.frames, spoke_until, made.line.sent[0].began

    answer, frames, spoke_until, asked_at = play(scene, None, MODE_E)
    assert answer.result["value"] == "1234.5"
    assert asked_at - spoke_until >= 1.5
    thrown_away = [data for _direction, data, note in frames if note == "unasked, thrown away"]
    assert b"".join(thrown_away) == b"stray " * 3


def test_a_sign_on_of_mode_e_that_fails_ends_with_a_break_and_the_next_one_waits_for_it() -> None:
    async def scene(made: Bench) -> tuple[list[LinkError], MemoryLine]:
        made.end.prelude = lambda line: asyncio.Event().wait()  # type: ignore[assignment,return-value]
        return [await caught(made.submit("READ_CLOCK")) for _ in range(2)], made.line

    errors, line = play(scene, None, MODE_E)
    assert ["did not enter HDLC" in str(error) for error in errors] == [True, True]
    assert [error.reason for error in errors] == [LinkReason.SILENT] * 2
    breaks = [number for number, sent in enumerate(line.sent) if sent.data == BREAK]
    assert len(breaks) == 2
    assert line.sent[breaks[0] + 1].began - line.sent[breaks[0]].ended >= 1.5
    assert line.format == LineFormat(300, 7, "E")


def test_a_sign_on_of_mode_e_that_is_cut_off_ends_with_a_break() -> None:
    async def scene(made: Bench) -> MemoryLine:
        made.end.prelude = optical_head
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.9):  # the request has left, the identification is on its way
                await made.submit("READ_CLOCK")
        return made.line

    line = play(scene, None, MODE_E)
    assert [sent.data for sent in line.sent] == [b"/?!\r\n", BREAK]


def test_mode_e_needs_a_rate() -> None:
    async def scene(made: Bench) -> LinkError:
        made.line.has_rate = False
        return await caught(made.submit("READ_CLOCK"))

    assert "no rate that could be switched" in str(play(scene, None, MODE_E))


def test_the_connection_test_says_what_it_found() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        async with bench(loop) as made:
            look = getattr(made.adapter, "look")  # noqa: B009 - not part of the port
            return list(await look())

    said = run_virtual(main)
    assert said[-1] == "Its name is MTR0000000000001."
    assert "offers: " in said[0]
