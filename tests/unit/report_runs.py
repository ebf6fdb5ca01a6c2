"""A workspace with a commissioning run as a report needs it: answers, frames, samples, a photo, and what went wrong."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.device import Device, NodeKind
from app.model.flow import (
    Batch,
    Commissioning,
    CommissioningStep,
    FlowCheck,
    FlowRun,
    FlowStatus,
    FlowStepRun,
    RunStatus,
    StepStatus,
)
from app.model.interaction import Attempt, AttemptEnd, Direction, Failure, Frame, Origin, Step, StepEntry
from app.model.reading import Finding, Quantity, SampleSet, Severity
from app.model.records import Attachment, Change
from app.model.status import Delivery, Event, Status
from tests.unit.interaction_log.logs import START, message, queued

TOKEN: Final = "58491023847561029384"
SECRET: Final = "Pa55/wörd+geheim"
SERIAL: Final = "DCBM-0815-4711"
SCRIPT: Final = "</pre><script>alert('x')</script>"

VOLTAGE: Final = Quantity("voltage", "V", "DC voltage")
CURRENT: Final = Quantity("current", "A", "DC current")
HOT: Final = Quantity("temperature_high", "°C", "Temperature, plus")
COLD: Final = Quantity("temperature_low", "°C", "Temperature, minus")


def picture(width: int = 480, height: int = 320) -> bytes:
    """A PNG: a meter's face in a few colours, made without a library."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            inside = 80 < x < width - 80 and 60 < y < height - 60
            display = inside and 120 < y < 180
            rows += bytes((30, 60, 40) if display else (225, 228, 232) if inside else (90 + y // 4, 110, 140))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    )


PHOTO: Final = Attachment.of("wiring.png", "image/png", START + timedelta(seconds=40), picture())
MEMO: Final = Attachment.of("memo.txt", "text/plain", START + timedelta(seconds=41), b"torque 25 Nm\n")

DEFINITION: Final[Mapping[str, Any]] = {
    "name": "lem-dcbm",
    "version": 3,
    "title": "LEM DCBM acceptance",
    "text": "Identity, clock, live values in their limits, one signed test transaction.",
    "adapters": ["lem-dcbm"],
    "inputs": [{"name": "nominal", "title": "Nominal voltage", "type": "decimal", "unit": "V"}],
    "steps": [
        {
            "name": "identity", "title": "Identity and firmware", "command": "READ_STATUS",
            "expect": [{"value": "result.serial", "equals": "{device.serial}"}, {"value": "result.firmware"}],
            "evidence": ["result.flags.time_synced", {"value": "result.token", "title": "Proof"}],
        },
        {"name": "wiring", "title": "Wiring", "ask": "Are both conductors tightened with 25 Nm and marked?"},
        {
            "name": "live", "title": "Live values", "command": "READ_LIVE",
            "expect": [{"value": "result.voltage", "about": "{input.nominal}", "tolerance": "2 %"}],
        },
        {"name": "clock", "title": "Clock", "command": "READ_CLOCK"},
        {"name": "start", "title": "Test transaction", "command": "START_TRANSACTION"},
        {"name": "tls", "title": "TLS certificate", "command": "READ_CERTIFICATE"},
    ],
}  # fmt: skip


def _life(
    number: int, command: str, at_s: float, result: Mapping[str, Any] | None, *, token: str = "", kind: str = "read"
) -> list[Change]:
    """One interaction as the pipeline leaves it: successful, or failed where there is no result."""
    at = START + timedelta(seconds=at_s)
    item = queued(
        number, device="lem-1", adapter="lem-dcbm", command=command, kind=CommandKind(kind), created=at, updated=at,
        params={"note": f"for {SCRIPT}", "password": SECRET}, origin=Origin.USER, token=token,
    )  # fmt: skip
    sent, back = at + timedelta(milliseconds=21), at + timedelta(milliseconds=214)
    item = item.after(Event.SEND, sent, attempts=1)
    if result is not None:
        done = item.after(Event.SUCCEED, back, result=result)
    else:
        failure = Failure(code="TIMEOUT", text="Meter 4711 did not answer in 12 s.", at=back, release="Try again.")
        done = item.after(Event.FAIL, back, failure=failure)
    lines = (
        (Step.REQUEST, "REQUEST", None, at, "asked by flow"),
        (Step.GATEKEEPER, Event.ADMIT, Status.QUEUED, at, "let through: no rule speaks against it"),
        (Step.NETWORK, Event.SEND, Status.PROCESSING, sent, ""),
        (Step.ANSWER, "ANSWER", None, back, "the answer came"),
        (Step.UPDATED, Event.SUCCEED if result is not None else Event.FAIL, done.status, back, ""),
    )
    steps = [
        StepEntry(interaction=number, at=moment, step=step, event=event, status=status, text=text)
        for step, event, status, moment, text in lines
    ]
    job = message(number, item, attempt=1, state=Delivery.DELIVERY_SUCCESSFUL)
    end = AttemptEnd.ANSWERED if result is not None else AttemptEnd.FAILED
    attempt = Attempt(interaction=number, message=number, number=1, started=sent, ended=back, end=end)
    coded = base64.b64encode(SECRET.encode()).decode()
    asked = f"GET /v1/status HTTP/1.1\r\nHost: 192.0.2.7\r\nX-Note: {coded}\r\n\r\n"
    body = json.dumps({"status": {"value": 17, "text": "x" * 300}, "token": TOKEN, "note": SCRIPT})
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    frames = [
        Frame(at=moment, device="lem-1", link="http 192.0.2.7:80", direction=way, data=text.encode(),
              interaction=number, attempt=1)
        for moment, way, text in ((sent, Direction.OUT, asked), (back, Direction.IN, answer))
    ]  # fmt: skip
    return [done, *steps, job, attempt, *frames]


def make_run(**changes: Any) -> FlowRun:
    """The run of ``make_workspace``: two warnings of one kind or the other, one refusal, one skipped step."""

    def at(seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    passed = StepStatus.PASSED
    steps = (
        FlowStepRun(
            name="identity", interactions=(1,), started=at(1), ended=at(1.3), status=passed,
            checks=(
                FlowCheck(what="Serial number", found=SERIAL, wanted=f"equal to {SERIAL}", is_met=True),
                FlowCheck(what="Firmware", found="0.1.5.0", wanted="one of 0.1.5.0, 0.2.1.0", is_met=True),
                FlowCheck(what="result.flags.time_synced", found="yes", wanted="", is_met=True),
                FlowCheck(what="Proof", found=TOKEN, wanted="", is_met=True),
            ),
        ),
        FlowStepRun(
            name="wiring", started=at(20), ended=at(55), answer="yes", note=f"Marked L+ and L- {SCRIPT}", by="user",
            attachments=(PHOTO.sha256, MEMO.sha256, "0" * 64), status=passed,
        ),
        FlowStepRun(
            name="live", interactions=(2, 3), started=at(60), ended=at(62), status=StepStatus.FAILED,
            text="DC voltage is not within 2 % of 400 V.",
            checks=(FlowCheck(what="DC voltage", found="371.2 V", wanted="400 V +- 2 %", unit="V", is_met=False),),
        ),
        FlowStepRun(
            name="clock", interactions=(4,), started=at(63), ended=at(63.3), status=StepStatus.WARNED,
            text="The clock is 7 s late.",
            checks=(FlowCheck(what="Clock drift", found="-7 s", wanted="at most 5 s", unit="s", is_met=False),),
        ),
        FlowStepRun(name="start", interactions=(5, 99), started=at(70), ended=at(71), status=passed),
        FlowStepRun(name="tls", status=StepStatus.SKIPPED, text="The meter has no certificate.", by="user"),
    )  # fmt: skip
    values: dict[str, Any] = {
        "id": 5,
        "device": "lem-1",
        "flow": "lem-dcbm",
        "created": START,
        "updated": at(120),
        "ended": at(120),
        "status": RunStatus.FAILED,
        "text": "Step 3, Live values: DC voltage is not within 2 % of 400 V.",
        "definition": DEFINITION,
        "inputs": {"nominal": "400"},
        "header": {
            "site": "Charging park Nordhof", "engineer": "A. Engineer", "customer": "Stadtwerke & Söhne",
            "instrument": "Reference meter 4711-R",
        },
        "steps": steps,
    }  # fmt: skip
    return FlowRun(**{**values, **changes})


def make_workspace(path: Path, run: FlowRun | None = None, *, samples: int = 121) -> FlowRun:
    """Write everything that the run speaks of; interaction 99 is missing, and so is one attachment."""
    run = make_run() if run is None else run
    with LogWriter(path) as writer:
        writer.put(
            Device(id="nord", name="Nordhof", kind=NodeKind.SITE),
            Device(id="row-a", name="Row A", kind=NodeKind.GRID, parent="nord"),
            Device(id="lem-1", name="Column 1", parent="row-a", adapter="lem-dcbm", serial=SERIAL, model="DCBM 400",
                   settings={"host": "192.0.2.7", "password": "keyring:lem-1.password"}),
            PHOTO, MEMO,
        )  # fmt: skip
        status = {
            "serial": SERIAL, "firmware": "0.1.5.0", "manufacturer": "LEM", "token": TOKEN,
            "flags": {"time_synced": True, "error": False}, "status_words": ["ready", "time is synchronised"],
            "registers": [{"value": str(n), "unit": "Wh"} for n in range(50)],
        }  # fmt: skip
        writer.put(*_life(1, "READ_STATUS", 1, status, token=TOKEN))
        writer.put(*_life(2, "READ_LIVE", 60, None))
        live = {"voltage": {"value": "371.2", "unit": "V"}, "current": {"value": "0.02", "unit": "A"}}
        writer.put(*_life(3, "READ_LIVE", 61, live))
        writer.put(*_life(4, "READ_CLOCK", 63, {"drift_s": -7}))
        writer.put(*_life(5, "START_TRANSACTION", 70, {"transaction_id": "T-1", "running": True}, kind="control"))
        writer.put(
            Finding(at=START + timedelta(seconds=63), device="lem-1", severity=Severity.WARNING, code="CLOCK",
                    text="The clock drifts.", interaction=4)
        )  # fmt: skip
        for n in range(-20, samples + 20):
            values = (
                (VOLTAGE, Decimal(f"{400 + 3 * math.sin(n / 7) - (28 if 55 < n < 66 else 0):.2f}")),
                (CURRENT, Decimal(f"{20 + n / 5:.3f}")),
                (HOT, Decimal(f"{31 + n / 60:.1f}")),
                (COLD, Decimal(f"{29 + n / 80:.1f}")),
            )
            if not 80 <= n < 95:  # the link was gone
                writer.put(SampleSet(device="lem-1", received=START + timedelta(seconds=n), values=values))
        writer.put(run)
        writer.flush(text=True)
    return run


def make_commissioning(status: FlowStatus = FlowStatus.SUCCESSFUL) -> Commissioning:
    """By the six steps, over the interactions of ``make_workspace``."""
    steps = (
        CommissioningStep(command="CLEAR_TAMPER", interaction=1, status=Status.SUCCESSFUL),
        CommissioningStep(command="READ_VOLTAGE", interaction=3, status=Status.SUCCESSFUL, warning="371 V is low."),
        CommissioningStep(command="TOP_UP", interaction=2, status=Status.FAILED),
    )
    return Commissioning(
        id=7, device="lem-1", created=START, updated=START + timedelta(minutes=2), status=status, steps=steps
    )


def make_batch(**changes: Any) -> Batch:
    values: dict[str, Any] = {
        "id": 3, "name": "Row A", "created": START, "updated": START, "flow": "lem-dcbm", "total": 2,
        "completed_at": START + timedelta(minutes=5),
    }  # fmt: skip
    return Batch(**{**values, **changes})
