"""A meter on a line as the window knows it: a clock that can be set, COSEM objects, and answers of every such kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Risk
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.reading import LinkState
from app.model.status import Status
from tests.ui.fakes import FakeFleetType, FakeWorkbench, site
from tests.ui.log_fakes import START, interaction

METER = "m-7"
PLAIN = "lem-1"  # has neither a clock nor objects


def _read(name: str, title: str, *params: ParamSpec) -> CommandSpec:
    return CommandSpec(name=name, title=title, kind=CommandKind.READ, params=params)


SET_CLOCK = CommandSpec(
    name="SET_CLOCK",
    title="Set clock",
    kind=CommandKind.WRITE,
    risk=Risk.WRITE,
    verb="Set the clock of {device}",
    changes="meter_time",
    shadow={"meter_time": "new_time"},
    params=(
        ParamSpec(
            name="time",
            title="Time",
            type=ParamType.TIME,
            required=False,
            help="Empty: this computer's time at the moment of sending.",
        ),
    ),
)


class FakeLineType(FakeFleetType):
    """A DLMS meter on a serial line."""

    key = "fake-line"
    title = "Meter on a line"
    summary = "One meter on a serial port."
    specs = (
        _read("READ_CLOCK", "Read clock"),
        SET_CLOCK,
        _read("READ_OBJECTS", "Read object list"),
        _read(
            "READ_ATTRIBUTE",
            "Read attribute",
            ParamSpec(name="class", title="Class", type=ParamType.INTEGER),
            ParamSpec(name="obis", title="OBIS code"),
            ParamSpec(name="attribute", title="Attribute", type=ParamType.INTEGER),
        ),
    )

    def form(self) -> tuple[ParamSpec, ...]:
        return (ParamSpec(name="port", title="Port", type=ParamType.PORT, help="Where the meter is connected."),)


def line_bench() -> FakeWorkbench:
    """The small site with a DLMS meter that is online."""
    meter = Device(
        id=METER,
        name="Meter 7",
        parent="north",
        adapter="fake-line",
        serial="70000007",
        settings={"port": "usb:0403:6001:A50285BI"},
    )
    bench = FakeWorkbench((*site(), meter))
    bench.types["fake-line"] = FakeLineType()
    bench.set_link(METER, LinkState.ONLINE)
    return bench


def answer(number: int, command: str, result: dict[str, Any] | None, **more: Any) -> Interaction:
    """One settled interaction of the meter, an hour after the one before."""
    status = Status.SUCCESSFUL if result is not None else Status.PROCESSING
    at = START + timedelta(hours=number)
    values: dict[str, Any] = {"device": METER, "status": status, "result": result, "created": at, "updated": at}
    values |= {"failure": None, "finished": at if result is not None or "failure" in more else None}
    return interaction(number, command=command, **{**values, **more})


# ---------------------------------------------------------------- clock


def clock_item(number: int, drift_s: float, **more: Any) -> Interaction:
    computer = START + timedelta(hours=number)
    result = {
        "meter_time": (computer + timedelta(seconds=drift_s))
        .replace(tzinfo=None)
        .isoformat(sep=" ", timespec="seconds"),
        "computer_time": computer.isoformat(),
        "drift_s": drift_s,
        "summary": "The clock was read.",
    }
    return answer(number, "READ_CLOCK", result, **more)


def clock_set_item(number: int, before_s: float, after_s: float) -> Interaction:
    at = START + timedelta(hours=number)
    result = {
        "old_time": (at + timedelta(seconds=before_s)).isoformat(),
        "new_time": (at + timedelta(seconds=after_s)).isoformat(),
        "drift_before_s": before_s,
        "drift_after_s": after_s,
        "summary": "The clock was set.",
    }
    return replace(answer(number, "SET_CLOCK", result), kind=CommandKind.WRITE)


# ---------------------------------------------------------------- objects


def _object(class_id: int, class_name: str, obis: str, name: str, *attributes: tuple[str, str]) -> dict[str, Any]:
    told = (("logical_name", "read"), *attributes)
    return {
        "class": class_id,
        "class_name": class_name,
        "version": 0,
        "obis": obis,
        "name": name,
        "attributes": [{"index": n, "name": one, "access": access} for n, (one, access) in enumerate(told, 1)],
        "methods": [{"index": 1, "name": "reset", "access": "access"}] if class_id == 3 else [],
    }


def objects_result(more: int = 0) -> dict[str, Any]:
    """A small object list; ``more`` registers of the manufacturer on top."""
    register = (("value", "read"), ("scaler_unit", "read"))
    listed = [
        _object(8, "Clock", "0-0:1.0.0.255", "Clock", ("time", "read_write"), ("time_zone", "read_write")),
        _object(15, "Association LN", "0-0:40.0.0.255", "Current association", ("object_list", "read"),
                ("secret", "no_access")),
        _object(1, "Data", "0-0:96.1.0.255", "Serial number", ("value", "read")),
        _object(3, "Register", "1-0:1.8.0.255", "Energy import", *register),
        _object(3, "Register", "1-0:2.8.0.255", "Energy export", *register),
        _object(3, "Register", "1-0:32.7.0.255", "Voltage L1", *register),
        _object(7, "Profile generic", "1-0:99.1.0.255", "Load profile 1", ("buffer", "read"),
                ("capture_objects", "read")),
        *(_object(3, "Register", f"1-1:{128 + n % 100}.{n // 100}.0.255", "", *register) for n in range(more)),
    ]  # fmt: skip
    return {"summary": f"{len(listed)} objects.", "objects": listed}


def objects_item(number: int, more: int = 0) -> Interaction:
    return answer(number, "READ_OBJECTS", objects_result(more))


def attribute_item(
    number: int, obis: str = "1-0:32.7.0.255", value: Any = "231.4", unit: str = "V", **more: Any
) -> Interaction:
    params = {"class": 3, "obis": obis, "attribute": 2}
    result = {
        **params,
        "name": "Voltage L1",
        "attribute_name": "value",
        "value": value,
        "unit": unit,
        "type": "long-unsigned",
        "raw": "12090A",
    }
    more.setdefault("result", result)
    shown = more.pop("result")
    return answer(number, "READ_ATTRIBUTE", shown, params=params, **more)


# ---------------------------------------------------------------- detection and phasors


def detection_result(*, is_found: bool = True) -> dict[str, Any]:
    sent = "2F3F210D0A"
    attempts = [
        {"number": 1, "format": "300 7E1", "parity": "port", "sent": sent, "received": "", "text": "",
         "verdict": "silent", "seconds": 1.52},
        {"number": 2, "format": "9600 7E1", "parity": "port", "sent": sent, "received": "00F8FF", "text": "",
         "verdict": "noise", "seconds": 0.31},
    ]  # fmt: skip
    if is_found:
        text = "/LGZ5\\2ZMG405000b.P07\r\n"
        attempts.append(
            {"number": 3, "format": "300 7E1", "parity": "software", "sent": sent, "received": text.encode().hex(),
             "text": text, "verdict": "identified", "seconds": 0.84}
        )  # fmt: skip
    found = {"identification": "/LGZ5\\2ZMG405000b.P07", "format": "300 7E1", "mode": "C"}
    nothing = {"identification": "", "format": "", "mode": ""}
    return {"summary": "", "attempts": attempts, **(found if is_found else nothing)}


def reading_row(obis: str, value: str, unit: str = "") -> dict[str, Any]:
    return {"obis": obis, "name": "", "value": value, "unit": unit, "values": [value], "raw": f"{obis}({value})"}


def phasor_rows(**angles: str) -> list[dict[str, Any]]:
    """Three voltages and currents, and angles by their E: ``e4="32.0"`` is 81.7.4."""
    found: Sequence[tuple[str, str, str]] = (
        ("1-0:32.7.0*255", "231.4", "V"), ("1-0:52.7.0*255", "229.8", "V"), ("1-0:72.7.0*255", "232.0", "V"),
        ("1-0:31.7.0*255", "12.31", "A"), ("1-0:51.7.0*255", "8.07", "A"), ("1-0:71.7.0*255", "0.412", "A"),
    )  # fmt: skip
    return [
        *(reading_row(*one) for one in found),
        *(reading_row(f"1-0:81.7.{name[1:]}*255", value, "deg") for name, value in angles.items()),
    ]
