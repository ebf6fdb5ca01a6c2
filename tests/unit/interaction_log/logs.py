"""Plausible logs for the tests, made the way the pipeline makes them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from app.model.command import CommandKind
from app.model.device import Device, NodeKind
from app.model.flow import (
    Batch,
    BatchRule,
    Commissioning,
    CommissioningStep,
    DeliveryStatus,
    FlowRecord,
    FlowStatus,
    Issue,
    IssueKind,
    Notification,
    Order,
)
from app.model.interaction import (
    Attempt,
    AttemptEnd,
    Direction,
    Failure,
    Frame,
    Interaction,
    Message,
    Origin,
    Step,
    StepEntry,
)
from app.model.reading import DeviceState, Finding, LinkState, Quantity, SampleSet, Severity
from app.model.records import Attachment, Change, OutboxItem, Seen, Setting
from app.model.status import Delivery, Event, Status

START = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
VOLTAGE = Quantity("voltage", "V", "DC voltage")
ENERGY = Quantity("energy_import", "Wh", "Import", "1-0:1.8.0")
PHOTO = Attachment.of("plate.png", "image/png", START, b"\x89PNG\r\n\x1a\n" + bytes(range(256)))


_ORIGINS = [origin for origin in Origin if origin is not Origin.FLOW]  # it is younger than the kept files of this seed


def fresh(number: int, **more: Any) -> Interaction:
    """As intake makes it, before the gatekeeper: version 0."""
    created = START + timedelta(seconds=number)
    values: dict[str, Any] = {
        "id": number,
        "device": "lem-1",
        "adapter": "lem",
        "command": "READ_LIVE",
        "kind": CommandKind.READ,
        "created": created,
        "updated": created,
    }
    return Interaction(**{**values, **more})


def queued(number: int, **more: Any) -> Interaction:
    item = fresh(number, **more)
    return item.after(Event.ADMIT, item.created)


def line(item: Interaction, event: str, *, changed: bool = True, **more: Any) -> StepEntry:
    return StepEntry(
        interaction=item.id,
        at=item.updated,
        step=Step.UPDATED,
        event=event,
        status=item.status if changed else None,
        **more,
    )


def message(number: int, item: Interaction, **more: Any) -> Message:
    values: dict[str, Any] = {
        "id": number,
        "interaction": item.id,
        "device": item.device,
        "lane": "lane-1",
        "created": item.created,
        "sequence": number,
        "state_since": item.created,
    }
    return Message(**{**values, **more})


def lifetime(number: int, rng: random.Random) -> Iterator[list[Change]]:
    """One interaction from asking to its end, or somewhere on the way: the calls the pipeline would make."""
    device = f"{rng.choice(('lem', 'calin', 'EMS'))}-{rng.randrange(4)}"
    command, kind = rng.choice(
        (
            ("READ_LIVE", CommandKind.READ),
            ("READ_METER", CommandKind.READ),
            ("SET_RELAY", CommandKind.CONTROL),
            ("TOP_UP", CommandKind.TOKEN),
        )
    )
    item = fresh(
        number,
        device=device,
        adapter=device.split("-")[0],
        command=command,
        kind=kind,
        origin=rng.choice(_ORIGINS),
        params=rng.choice(({}, {"amount": "12.5"}, {"relay": True, "note": "größer als 5\nzweite Zeile"})),
        batch=rng.choice((None, 3)),
        commissioning=rng.choice((None, None, 7)),
        followup_of=rng.choice((None, max(1, number - 1) if number > 1 else None)),
        order=rng.choice((None, "A-17")),
        shared_with=number - 1 if kind is CommandKind.READ and number % 11 == 0 else None,
    )
    at = item.created
    if rng.random() < 0.15:
        held = item.after(
            Event.SUSPEND, at, failure=Failure(code="LINK_DOWN", text="The gateway is offline.", at=at, release="link")
        )
        # As the pipeline keeps it (app/pipeline/explaining.py).
        verdict = line(held, Event.SUSPEND, code="LINK_DOWN", inputs={"v": 1, "now": -90, "link": "fault"})
        yield [held, replace(verdict, step=Step.GATEKEEPER)]
        return
    item = item.after(Event.ADMIT, at)
    job = message(number, item)
    yield [item, line(item, Event.ADMIT), job]
    if rng.random() < 0.1:
        return
    at += timedelta(milliseconds=20)
    item = item.after(Event.SEND, at, attempts=1)
    attempt = Attempt(interaction=number, message=job.id, number=1, started=at)
    job = replace(job, state=Delivery.SENT_TO_NS, attempt=1)
    sent = Frame(
        at=at, device=device, link="memory", direction=Direction.OUT, data=b"GET /x", interaction=number, attempt=1
    )
    yield [item, line(item, Event.SEND, attempt=1), job, attempt, sent]
    if rng.random() < 0.1:
        return
    at += timedelta(milliseconds=rng.randrange(1, 2000))
    received = Frame(
        at=at,
        device=device,
        link="memory",
        direction=Direction.IN,
        data=rng.randbytes(rng.randrange(40)),
        interaction=number,
        attempt=1,
    )
    roll = rng.random()
    if roll < 0.6:
        item = item.after(Event.SUCCEED, at, result={"voltage": {"value": "398.1", "unit": "V"}, "state": "idle"})
        job, end, event = replace(job, state=Delivery.DELIVERY_SUCCESSFUL), AttemptEnd.ANSWERED, Event.SUCCEED
    elif roll < 0.9:
        failure = Failure(code=rng.choice(("TIMEOUT", "DEVICE_REFUSED")), text="Meter 0123 did not answer.", at=at)
        item = item.after(Event.FAIL, at, failure=failure)
        job, end, event = replace(job, state=Delivery.DELIVERY_FAILED), AttemptEnd.FAILED, Event.FAIL
    else:
        failure = Failure(code="RESTART", text="Whether it took effect is not known.", at=at)
        item = item.after(Event.LOSE_SIGHT, at, failure=failure)
        job, end, event = replace(job, state=Delivery.DELIVERY_FAILED), AttemptEnd.LOST, Event.LOSE_SIGHT
    code = item.failure.code if item.failure is not None else ""
    done = replace(attempt, end=end, ended=at, code=code)
    changes: list[Change] = [item, line(item, event, code=code, attempt=1), job, done, received]
    if rng.random() < 0.3:
        changes.append(
            Finding(at=at, device=device, severity=Severity.WARNING, code="CLOCK", text="drifts", interaction=number)
        )
    if rng.random() < 0.1:
        changes.append(OutboxItem(id=number, interaction=number, effect="FACTS", payload={"a": 1}, created=at))
    yield changes


def flows() -> list[FlowRecord]:
    """Open and ended ones of every kind; the numbers 3 and 7 are those that ``lifetime`` gives."""
    at = START + timedelta(hours=1)
    times: dict[str, Any] = {"created": START, "updated": at}
    steps = (
        CommissioningStep(command="SET_CLOCK", interaction=4, status=Status.SUCCESSFUL, warning="It was 3 s late."),
        CommissioningStep(command="TURN_ON", interaction=5),
    )
    ended = (CommissioningStep(command="TURN_ON", interaction=8, status=Status.SUCCESSFUL),)
    delivered = (Notification(at=at, status=DeliveryStatus.DELIVERED, shows_token=True),)
    return [
        Commissioning(id=1, device="calin-1", status=FlowStatus.FAILED, text="The meter said no.", **times),
        BatchRule(id=2, grid="site", hour=6, minute=30, command="READ_LIVE", params={"deep": [1, None]}, **times),
        Batch(id=3, name="Morning", rule=2, total=9, processing=1, successful=8, **times),
        Order(id=4, reference="A-17", device="calin-1", kwh=Decimal("12.50"), interaction=7, **times),
        Order(id=5, reference="A-18", device="calin-2", kwh=Decimal("1E+1"), delivery=DeliveryStatus.DELIVERED,
              notifications=delivered, interaction=9, **times),
        Issue(id=6, device="lem-1", kind=IssueKind.NO_COMMUNICATION, opened=START, updated=at, interaction=4),
        Commissioning(id=7, device="calin-1", status=FlowStatus.PROCESSING, steps=steps, retry_of=1, **times),
        Batch(id=8, name="Evening", completed_at=at, **times),
        Commissioning(id=9, device="calin-2", status=FlowStatus.SUCCESSFUL, steps=ended, **times),
        BatchRule(id=10, grid="site", hour=0, minute=0, command="READ_LIVE", is_deleted=True, **times),
        Commissioning(id=11, device="lem-1", status=FlowStatus.FAILED, registration=FlowStatus.FAILED, **times),
    ]  # fmt: skip


def calls(count: int, seed: int = 1) -> Iterator[list[Change]]:
    """What the pipeline writes for ``count`` interactions on a small site."""
    rng = random.Random(seed)
    yield [
        Device(id="site", name="Site", kind=NodeKind.SITE),
        Device(id="lem-1", name="Column 1", parent="site", adapter="lem", settings={"host": "10.0.0.1"}, position=1),
        DeviceState(device="lem-1", link=LinkState.ONLINE, last_contact=START, facts={"serial": "4711"},
                    facts_at={"serial": START}, facts_from={"serial": 2}),
        Setting(key="layout", value={"name": "lab"}),
        Seen(scope="device-messaging", names=("01M7XX7PF3H93G5KS8Z64QT0GT",), at=START),
    ]  # fmt: skip
    for number in range(1, count + 1):
        yield from lifetime(number, rng)
        at = START + timedelta(seconds=number)
        yield [
            SampleSet(
                device="lem-1",
                received=at,
                values=((VOLTAGE, Decimal("398.1") + number), (ENERGY, Decimal(number))),
                meter_time=at - timedelta(seconds=1) if number % 2 else None,
            )
        ]
    yield [
        Frame(at=START, device="lem-1", link="memory", direction=Direction.OUT, data=b"\x00poll\xff"),
        Finding(at=START, device="lem-1", severity=Severity.INFO, code="HELLO", text=""),
        PHOTO,
    ]
    yield list(flows())
