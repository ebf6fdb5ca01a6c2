"""Every reason why a command waits or ended reads as sentences, and says what releases it, wherever it is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.model.command import CommandKind
from app.model.interaction import Failure, Interaction
from app.model.status import Status
from app.pipeline.gatekeeper import Context, GateInput, GatewayView, GridView, MeterView, adjudicate
from app.ports import Reach
from tests.ui.fakes import FakeWorkbench, site
from tests.ui.log_fakes import MemoryReader, interaction, memory_log
from ui.models.log_table import Column, make_row
from ui.panels.detail import DetailPanel
from ui.reasons import reason_text
from ui.theme import Theme, ThemeMode
from ui.widgets.step_strip import StepStrip

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
OFF = GatewayView(id="gw-1", name="Gateway 1", is_online=False, updated_at=NOW)
ON = replace(OFF, is_online=True)
GRID = GridView(id="grid-1", name="Grid 1", is_hps_on=True, is_generation_managed=True, gateways=(ON,))
METER = MeterView(
    id="p-1", name="Meter 0371", reach=Reach.GRID, grid=GRID, gateway="gw-1", last_seen_at=NOW - timedelta(hours=2)
)
OWNED = Context(from_commissioning=True)


def gate(meter: MeterView = METER, **more: object) -> GateInput:
    values: dict[str, object] = {"command": "TOP_UP", "kind": CommandKind.TOKEN, "meter": meter, "now": NOW}
    return GateInput(**{**values, **more})  # type: ignore[arg-type]


GATES = {
    "GRID_DOWN": gate(replace(METER, grid=replace(GRID, is_hps_on=False))),
    "ALL_GATEWAYS_DOWN": gate(replace(METER, grid=replace(GRID, gateways=(OFF,)))),
    "GATEWAY_DOWN": gate(replace(METER, reach=Reach.GATEWAY, grid=replace(GRID, gateways=(OFF,)))),
    "AWAITING_FIRST_CONTACT": gate(
        replace(
            METER,
            grid=replace(GRID, recovered_at=NOW - timedelta(minutes=10)),
            unreachable_after_s=86400.0,
            last_seen_at=NOW - timedelta(hours=30),
        ),
        blocked_code="GRID_DOWN",
    ),
    "NOT_SEEN_RECENTLY": gate(replace(METER, fresh_s=3540.0), context=OWNED),
    "NEVER_SEEN": gate(replace(METER, fresh_s=3540.0, last_seen_at=None), context=OWNED),
    "AWAITING_CONTACT_AFTER_REJOIN": gate(
        replace(METER, fresh_s=3540.0), context=Context(from_commissioning=True, from_transition=True)
    ),
    "COMMISSIONING_IN_PROGRESS": gate(replace(METER, commissioning_active=True)),
    "BEHIND_SUSPENDED": gate(is_behind=True),
}
ENDED = {
    "EXPIRED": (Status.ABORTED, "TOP_UP waited longer than it may and was given up before it was sent."),
    "TOKEN_FAILED": (Status.FAILED, "No token could be made for TOP_UP of Meter 0371: the vendor did not answer."),
    "SUPERSEDED": (Status.SUPERSEDED, "A newer SET_POWER_LIMIT of Meter 0371 replaced it."),
}


def held(code: str) -> Interaction:
    verdict = adjudicate(GATES[code])
    assert verdict.code == code
    failure = Failure(code=code, text=verdict.text, at=NOW, release=verdict.release)
    return interaction(7, verdict.status, command="TOP_UP", failure=failure)


@pytest.mark.parametrize("code", GATES)
def test_what_waits_says_why_and_until_when(qapp: QApplication, qtbot: QtBot, code: str) -> None:
    item = held(code)
    assert item.failure is not None
    for part in (item.failure.text, item.failure.release):
        assert part[:1].isupper(), part
        assert part.endswith("."), part
        assert code not in part, "a sentence, not a code"
    text = f"{item.failure.text}  Goes on when: {item.failure.release}"
    assert reason_text(item) == text
    assert make_row(item, UTC).text(Column.REASON) == text
    theme = Theme(qapp, ThemeMode.LIGHT)
    strip = StepStrip(theme, zone=UTC, now=lambda: NOW)
    qtbot.addWidget(strip)
    strip.set_interaction(item)
    assert text in strip.plain_text()
    log = memory_log(MemoryReader())
    panel = DetailPanel(FakeWorkbench(site()), log, theme, zone=UTC)
    qtbot.addWidget(panel)
    assert panel.why_text(item) == f"Why: {text}"
    log.close()


@pytest.mark.parametrize("code", ENDED)
def test_what_ended_says_why(code: str) -> None:
    status, text = ENDED[code]
    item = interaction(7, status, failure=Failure(code=code, text=text, at=NOW, is_final=True))
    assert reason_text(item) == text


def test_a_step_that_is_not_due_yet_says_so() -> None:
    planned = interaction(7, Status.DEFERRED, commissioning=3)
    assert planned.failure is None
    assert reason_text(planned).startswith("Earlier steps of its commissioning are not done yet.")
    assert reason_text(interaction(7, Status.QUEUED)) == ""
