"""A picture of every panel in every state it must have; they are looked at, and here only made sure not to be blank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPoint, QSize, Qt, QTimer
from PySide6.QtGui import QFont, QPixmap
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Risk
from app.model.interaction import Failure, Interaction, Step
from app.model.reading import LinkState
from app.model.status import Status
from tests.ui.fakes import FakeClock, FakeWorkbench, busy, prepaid_site, site
from tests.ui.flows import fail_at_3, part_way, silent, whole_way
from tests.ui.log_fakes import (
    ANSWER_BYTES,
    OUTGOING,
    START,
    WHOLE,
    MemoryReader,
    history,
    interaction,
    memory_log,
    story,
    until,
)
from tests.ui.test_directive_editor import STEPS, gateway_bench, key_press, list_item
from tests.ui.test_readings_panel import (
    doubtful_item,
    half_item,
    log_item,
    pick,
    profile_item,
    profile_result,
    readout_item,
    waiting_item,
)
from tests.ui.test_records_panel import record_item
from ui.dialogs.directive import DirectiveDialog
from ui.log_access import LogAccess
from ui.models.log_table import Column
from ui.panels.command import CommandPanel
from ui.panels.commissioning import CommissioningPanel
from ui.panels.detail import DetailPanel, http_fields
from ui.panels.log import LogPanel
from ui.panels.ocmf import RecordsPanel
from ui.panels.readings import ReadingsPanel
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.hex_view import ByteField, HexView
from ui.widgets.step_strip import StepStrip

Shoot = Callable[..., None]


@pytest.fixture
def quiet_app(qapp: QApplication) -> Iterator[QApplication]:
    """The application, put back as it was."""
    palette, font = qapp.palette(), qapp.font()
    yield qapp
    qapp.styleHints().unsetColorScheme()
    qapp.setPalette(palette)
    qapp.setFont(font)


@pytest.fixture(params=["light", "dark"])
def theme(quiet_app: QApplication, request: pytest.FixtureRequest) -> Theme:
    made = Theme(quiet_app, ThemeMode(request.param))
    made.install()
    return made


@pytest.fixture
def shoot(theme: Theme, artifacts: Path, qtbot: QtBot) -> Shoot:
    """Show a widget at a size, keep its picture, and check that something is on it."""

    def taken(widget: QWidget, name: str, width: int, height: int, scale: float = 1.0) -> None:
        qtbot.addWidget(widget)
        widget.resize(width, height)
        widget.show()
        qtbot.waitExposed(widget)
        settled: list[int] = []
        QTimer.singleShot(0, lambda: QTimer.singleShot(0, partial(settled.append, 1)))
        qtbot.waitUntil(lambda: bool(settled))
        picture = QPixmap(QSize(round(width * scale), round(height * scale)))
        picture.setDevicePixelRatio(scale)
        picture.fill(theme.colour(Role.GROUND))
        widget.render(picture, QPoint(0, 0))
        assert picture.save(str(artifacts / f"{name}-{theme.mode.value}.png"))
        image = picture.toImage()
        colours = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 3)}
        assert len(colours) > 3

    return taken


@pytest.fixture
def open_log(qtbot: QtBot) -> Iterator[Callable[[MemoryReader], LogAccess]]:
    made: list[tuple[LogAccess, MemoryReader]] = []

    def opened(reader: MemoryReader) -> LogAccess:
        log = memory_log(reader)
        made.append((log, reader))
        return log

    yield opened
    for log, reader in made:
        reader.gate.set()
        log.close()


OpenLog = Callable[[MemoryReader], LogAccess]


# ---------------------------------------------------------------- log


def test_log_empty(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    panel = LogPanel(FakeWorkbench(site()), open_log(MemoryReader()), theme, zone=UTC)
    qtbot.waitUntil(until(lambda: not panel.model.is_loading))
    shoot(panel, "log-empty", 1000, 420)


def test_log_busy(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    panel = LogPanel(
        FakeWorkbench(site()), open_log(MemoryReader(interaction(n) for n in range(1, 5001))), theme, zone=UTC
    )
    panel.resize(1280, 480)
    panel.show()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 5000 and not panel.model.is_loading))
    panel.on_batch([interaction(5001)])
    panel.table.verticalScrollBar().setValue(4700)
    panel.on_batch([interaction(5002), interaction(5003), interaction(5004)])
    qtbot.waitUntil(until(lambda: panel.model.id_at(4700) is not None))
    panel.table.selectRow(4705)
    shoot(panel, "log-busy", 1280, 480)


def test_log_saved_filters_and_colours(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, 41))
    panel = LogPanel(FakeWorkbench(site()), open_log(reader), theme, zone=UTC)
    panel.resize(1280, 480)
    panel.show()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 40 and not panel.model.is_loading))
    for text, role in (("status:FAILED", Role.BAD), ("device:lem-1", Role.VIOLET), ("id:25..30", Role.GOOD)):
        panel.set_filter(text)
        panel.colours.add_rule(role)
        panel.saved.ask_name()
        panel.saved.name.setText(f"Only {text}")
        panel.saved.take.click()
    panel.set_filter("")

    def inks() -> set[str]:
        brushes = [
            panel.model.index(row, Column.COMMAND).data(Qt.ItemDataRole.ForegroundRole)
            for row in range(panel.model.rowCount())
        ]
        return {brush.color().name() for brush in brushes if brush is not None}

    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 40 and len(inks()) >= 3))
    shoot(panel, "log-colours", 1280, 480)
    panel.saved.fill_menu()
    panel.colours.fill_menu()
    for name, menu in (("saved", panel.saved.menu), ("rules", panel.colours.rules_menu)):
        shoot(menu, f"log-menu-{name}", menu.sizeHint().width(), menu.sizeHint().height())


def test_log_wrong_filter(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    panel = LogPanel(
        FakeWorkbench(site()), open_log(MemoryReader(interaction(n) for n in range(1, 301))), theme, zone=UTC
    )
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 300 and not panel.model.is_loading))
    panel.set_filter("device:lem-1 nothing:such")
    shoot(panel, "log-wrong-filter", 900, 300)


def test_log_slow_and_narrow(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, 2001))
    panel = LogPanel(FakeWorkbench(site()), open_log(reader), theme, zone=UTC)
    panel.resize(640, 300)
    panel.show()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 2000 and not panel.model.is_loading))
    reader.gate.clear()
    panel.set_filter("device:lem-1")
    qtbot.waitUntil(until(panel.progress.isVisible))
    shoot(panel, "log-slow-200", 640, 300, 2.0)


def test_log_failing(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    reader = MemoryReader()
    reader.is_broken = True
    panel = LogPanel(FakeWorkbench(site()), open_log(reader), theme, zone=UTC)
    qtbot.waitUntil(until(lambda: bool(panel.message.text())))
    shoot(panel, "log-failing", 900, 300)


# ---------------------------------------------------------------- strip


def strip_of(theme: Theme, item: Interaction | None, steps: int, **more: object) -> StepStrip:
    clock = FakeClock(START + timedelta(seconds=192 + (item.id if item else 0)))
    strip = StepStrip(theme, zone=UTC, now=clock.now)
    strip.setAutoFillBackground(True)
    if item is not None:
        strip.set_interaction(item, history(item, WHOLE[:steps]))
    return strip


def test_strips(theme: Theme, shoot: Shoot, qtbot: QtBot) -> None:
    blocked = interaction(5, Status.SUSPENDED)
    for name, item, steps in (
        ("empty", None, 0),
        ("blocked", blocked, 4),
        ("queued", interaction(7, Status.QUEUED), 5),
        ("sent", interaction(7, Status.PROCESSING), 7),
        ("done", interaction(8, Status.SUCCESSFUL), 14),
        ("failed", interaction(8, Status.FAILED), 8),
        ("unknown", interaction(8, Status.OUTCOME_UNKNOWN), 7),
    ):
        strip = strip_of(theme, item, steps)
        shoot(strip, f"strip-{name}", 1180, strip.heightForWidth(1180))
        narrow = strip_of(theme, item, steps)
        shoot(narrow, f"strip-{name}-narrow-200", 520, narrow.heightForWidth(520), 2.0)


def test_strip_right_to_left_and_focused(theme: Theme, shoot: Shoot, qtbot: QtBot) -> None:
    strip = strip_of(theme, interaction(7, Status.PROCESSING), 7)
    strip.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    strip.setFocus()
    shoot(strip, "strip-rtl", 1180, strip.heightForWidth(1180))


def test_strip_with_large_letters(theme: Theme, shoot: Shoot, qtbot: QtBot) -> None:
    strip = strip_of(theme, interaction(5, Status.SUSPENDED), 4)
    font = QFont(strip.font())
    font.setPointSizeF(font.pointSizeF() * 2)
    strip.setFont(font)
    shoot(strip, "strip-large-letters", 1280, strip.heightForWidth(1280))


# ---------------------------------------------------------------- detail


def detail_of(theme: Theme, log: LogAccess, reader: MemoryReader, item: Interaction, steps: int) -> DetailPanel:
    told = story(item, WHOLE[:steps])
    if steps < 8:
        told = replace(told, frames=told.frames[:1] if steps >= 7 else (), attempts=told.attempts if steps >= 7 else ())
    reader.stories[item.id] = told
    now = item.created + timedelta(seconds=192)
    panel = DetailPanel(FakeWorkbench(site()), log, theme, zone=UTC, now=lambda: now)
    panel.show_interaction(item.id)
    return panel


def test_detail_empty(theme: Theme, shoot: Shoot, open_log: OpenLog) -> None:
    panel = DetailPanel(FakeWorkbench(site()), open_log(MemoryReader()), theme, zone=UTC)
    shoot(panel, "detail-empty", 1100, 320)


@pytest.mark.parametrize(
    ("name", "status", "steps", "tab", "width", "scale"),
    [
        ("blocked", Status.SUSPENDED, 4, 0, 1280, 1.0),
        ("failed", Status.FAILED, 8, 1, 1280, 1.0),
        ("unknown", Status.OUTCOME_UNKNOWN, 7, 0, 1280, 1.0),
        ("answer", Status.SUCCESSFUL, 14, 3, 1280, 1.0),
        ("bytes", Status.SUCCESSFUL, 14, 4, 1280, 1.0),
        ("narrow-200", Status.SUCCESSFUL, 14, 0, 640, 2.0),
        ("related-none", Status.QUEUED, 5, 5, 1280, 1.0),
        ("why", Status.SUSPENDED, 4, 6, 1280, 1.0),
    ],
)
def test_detail(
    theme: Theme,
    shoot: Shoot,
    open_log: OpenLog,
    qtbot: QtBot,
    name: str,
    status: Status,
    steps: int,
    tab: int,
    width: int,
    scale: float,
) -> None:
    reader = MemoryReader()
    item = interaction(1833, status, device="lem-1", command="START_TRANSACTION", params={"evse_id": "DE*ABC*E1"})
    if status is Status.SUSPENDED:
        failure = Failure(
            code="GRID_DOWN",
            text="all gateways of the grid are offline since 14:02.",
            at=item.created,
            release="one is back for 5 min.",
        )
        item = replace(item, failure=failure)
    panel = detail_of(theme, open_log(reader), reader, item, steps)
    panel.resize(width, 420)
    panel.show()
    qtbot.waitUntil(until(lambda: bool(panel.steps_model.rows())))
    panel.tabs.setCurrentIndex(tab)
    if name == "why":
        story = reader.stories[item.id]
        gateways = [["gateway-1", 0, -240_000_000], ["gateway-2", 1, -1_900_000_000]]
        inputs = {"v": 1, "by": ["from_user"], "reach": "grid", "grid": {"id": "grid-1", "hps": 0, "gw": gateways}}
        verdict = replace(story.steps[-1], code="GRID_DOWN", text="Grid 1 is dark.", inputs=inputs)
        reader.stories[item.id] = replace(story, steps=(*story.steps[:-1], verdict))
        panel.show_interaction(item.id)
        qtbot.waitUntil(until(lambda: len(panel.rules_model.rows()) > 4))
    if name == "bytes":
        panel.bytes.list.selectRow(1)
        panel.bytes.as_text.setChecked(False)
        value = panel.bytes.tree.topLevelItem(0)
        assert value is not None
        panel.bytes.tree.setCurrentItem(value)
    shoot(panel, f"detail-{name}", width, 480 if width < 1000 else 420, scale)


@pytest.mark.parametrize("name", ["module-link", "optical-head"])
def test_frame_inspector(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot, name: str) -> None:
    frames = {
        "module-link": bytes.fromhex("7eff0300230009c1028005282b12012c7cfd7e"),  # its check is swapped
        "optical-head": b"\x02F.F(00000000)\r\n1.8.0(001234.5*kWh)\r\n32.7(231*V)\r\n!\r\n\x03\x1d",
    }
    reader = MemoryReader()
    item = interaction(1833, Status.SUCCESSFUL, device="lem-1", command="READOUT", params={})
    panel = detail_of(theme, open_log(reader), reader, item, 14)
    shown = replace(reader.stories[item.id].frames[1], data=frames[name])
    reader.stories[item.id] = replace(reader.stories[item.id], frames=(shown,))
    panel.resize(1280, 520)
    panel.show()
    qtbot.waitUntil(until(lambda: bool(panel.bytes.parts_model.rows())))
    panel.tabs.setCurrentIndex(4)
    panel.bytes.as_text.setChecked(False)
    panel.bytes.parts.selectRow(4)
    shoot(panel, f"inspector-{name}", 1280, 520)


def test_hex_views(theme: Theme, shoot: Shoot) -> None:
    view = HexView(theme)
    view.set_bytes(ANSWER_BYTES, http_fields(ANSWER_BYTES, ("first line", "headers", "body")), ink=Role.HEX_IN)
    view.select(20, 40)
    shoot(view, "hex-fields", 760, 220)
    frame = bytes(range(0, 256, 3))
    small = HexView(theme)
    small.set_bytes(
        frame,
        [ByteField(0, 1, Role.HEX_FIELD_1, "flag"), ByteField(1, 9, Role.HEX_FIELD_2, "address"),
         ByteField(9, 80, Role.HEX_FIELD_4, "body"), ByteField(80, 86, Role.HEX_BROKEN, "checksum")],
    )  # fmt: skip
    shoot(small, "hex-small-200", 400, 220, 2.0)


# ---------------------------------------------------------------- command


def many(workbench: FakeWorkbench) -> None:
    """Give the meter a form with every kind of editor."""
    spec = CommandSpec(
        name="START_TRANSACTION",
        title="Start transaction",
        kind=CommandKind.CONTROL,
        risk=Risk.WRITE,
        verb="Start on {device}",
        help="Begins a signed charging transaction. It can be stopped after two minutes.",
        params=(
            ParamSpec(name="evse_id", title="EVSE id", max_bytes=20, help="Printed on the charging point."),
            ParamSpec(
                name="limit", title="Limit", type=ParamType.DECIMAL, unit="kWh", minimum=Decimal("0.1"), maximum=50
            ),
            ParamSpec(
                name="tariff", title="Tariff", type=ParamType.CHOICE, choices=((0, "day"), (1, "night")), default=0
            ),
            ParamSpec(name="notify", title="Notify", type=ParamType.BOOLEAN, default=True, required=False),
            ParamSpec(name="at", title="Start at", type=ParamType.TIME, required=False),
            ParamSpec(name="ca", title="Certificate", type=ParamType.PEM, required=False),
        ),
    )
    kind = workbench.types["fake-http"]
    vars(kind)["specs"] = (*kind.commands(workbench.device("lem-1"), {}), spec)


def no_question(*_args: object, **_more: object) -> None:
    """Stands for the dialog."""


def test_command(theme: Theme, shoot: Shoot, qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    busy(workbench)
    many(workbench)
    empty = CommandPanel(workbench, theme, confirm=no_question)
    shoot(empty, "command-empty", 320, 640)
    panel = CommandPanel(workbench, theme, confirm=no_question)
    panel.set_device("lem-1")
    panel.choose("READ_STATUS")
    panel.press()
    shoot(panel, "command-read", 320, 640)
    wrong = CommandPanel(workbench, theme, confirm=no_question)
    wrong.prefill("lem-1", "START_TRANSACTION", {"evse_id": "x" * 30, "limit": "70"})
    wrong.press()
    shoot(wrong, "command-wrong", 340, 900)
    danger = CommandPanel(workbench, theme, confirm=no_question)
    workbench.set_link("m-0124", LinkState.FAULT, "No answer since 11:42.")
    danger.prefill("m-0124", "DISCONNECT_RELAY")
    shoot(danger, "command-danger-200", 300, 480, 2.0)


# ---------------------------------------------------------------- commissioning


def yes_at_once(*_args: object, on_yes: Callable[[], None], **_more: object) -> None:
    """Stands for the dialog and a person who says yes."""
    on_yes()


@pytest.mark.parametrize(
    "name",
    ["empty", "never", "refused", "waiting", "registering", "running", "failed-at-3", "done-with-warning"],
)
def test_commissioning(theme: Theme, shoot: Shoot, open_log: OpenLog, name: str) -> None:
    workbench = FakeWorkbench(prepaid_site())
    panel = CommissioningPanel(workbench, open_log(MemoryReader()), theme, confirm=yes_at_once, zone=UTC)
    match name:
        case "empty" | "never":
            pass
        case "waiting":
            silent(workbench, "p-1")
        case "registering":
            workbench.install("p-1")
        case "running":
            part_way(workbench, "p-1", 3)
        case "failed-at-3":
            fail_at_3(workbench, "p-1")
        case "done-with-warning":
            whole_way(workbench, "p-1", warning="More than 15 % away from 230 V: C 187.2 V.")
        case "refused":
            workbench.refuses = "Meter 0371 cannot be commissioned from here: it has no READ_POWER."
    panel.set_device(None if name == "empty" else "p-1")
    if name == "refused":
        panel.start.click()
    if name == "running":
        third = panel.steps.topLevelItem(2)
        assert third is not None
        panel.steps.setCurrentItem(third)
    shoot(panel, f"commissioning-{name}", 860, 420)
    if name in ("running", "done-with-warning"):
        panel.resize(420, 420)
        shoot(panel, f"commissioning-{name}-narrow-200", 420, 420, 2.0)


# ---------------------------------------------------------------- records


def test_records(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    empty = RecordsPanel(workbench, open_log(MemoryReader()), theme, zone=UTC)
    qtbot.waitUntil(until(lambda: "No signed records" in empty.empty_text()))
    shoot(empty, "records-empty", 900, 360)
    items = [
        record_item(1),
        record_item(2, forged=True),
        record_item(3, key=""),
        record_item(4, intermediate=True),
    ]
    for name, row in (("good", 3), ("bad", 2), ("no-key", 1), ("intermediate", 0)):
        panel = RecordsPanel(workbench, open_log(MemoryReader(items)), theme, zone=UTC)
        qtbot.waitUntil(until(lambda p=panel: p.list.topLevelItemCount() == 4))  # type: ignore[misc]
        item = panel.list.topLevelItem(row)
        assert item is not None
        panel.list.setCurrentItem(item)
        shoot(panel, f"records-{name}", 1180, 720)
    narrow = RecordsPanel(workbench, open_log(MemoryReader(items)), theme, zone=UTC)
    qtbot.waitUntil(until(lambda: narrow.list.topLevelItemCount() == 4))
    shoot(narrow, "records-narrow-200", 640, 420, 2.0)


# ---------------------------------------------------------------- readings


def test_readings(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())

    def panel_of(*items: Interaction, chosen: int | None = None, device: str = "m-0123") -> ReadingsPanel:
        panel = ReadingsPanel(workbench, open_log(MemoryReader(items)), theme, zone=UTC)
        panel.set_device(device)
        panel.show()
        qtbot.waitUntil(until(lambda: panel.model.rowCount() == len(items)))
        if chosen is not None:
            pick(panel, chosen, qtbot)
        return panel

    empty = panel_of()
    qtbot.waitUntil(until(lambda: "No readings of" in empty.empty_text()))
    shoot(empty, "readings-empty", 900, 360)
    items = (readout_item(1), half_item(2), doubtful_item(3), profile_item(4), waiting_item(5))
    for name, chosen in (("readout", 1), ("incomplete", 2), ("doubtful", 3), ("profile", 4), ("waiting", 5)):
        shoot(panel_of(*items, chosen=chosen), f"readings-{name}", 1180, 620)
    raw = panel_of(*items, chosen=1)
    raw.tabs.setCurrentWidget(raw.raw)
    raw.raw.line.setText("(0")
    shoot(raw, "readings-raw", 1180, 420)
    gateway = panel_of(*items, log_item(6), chosen=6, device="dcu-3")
    gateway.tabs.setCurrentWidget(gateway.raw)
    shoot(gateway, "readings-log", 1180, 420)
    huge = panel_of(profile_item(1, result=profile_result(20_000)), chosen=1)
    huge.profile_view.selectRow(12_000)
    shoot(huge, "readings-huge", 1180, 620)
    shoot(panel_of(*items, chosen=4), "readings-narrow-200", 640, 520, 2.0)
    shoot(panel_of(*items, chosen=4), "readings-low", 760, 400)


def test_readings_loading(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    class HeldReader(MemoryReader):
        def page(self, **more: Any) -> list[Interaction]:
            self.wait()
            return super().page(**more)

    reader = HeldReader([readout_item(1)])
    reader.gate.clear()
    panel = ReadingsPanel(FakeWorkbench(site()), open_log(reader), theme, zone=UTC)
    shoot(panel, "readings-loading", 900, 360)


def test_directives(theme: Theme, shoot: Shoot, open_log: OpenLog, qtbot: QtBot) -> None:
    dialog = DirectiveDialog(theme, name="ReadoutDirective1", steps=f"{STEPS}\nfly=1\nsetBaud=fast")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    shoot(dialog, "directive-editor", 840, 460)
    dialog.parameter(2).setText("x" * 900)
    QApplication.sendEvent(dialog.parameter(0), key_press('"'))
    shoot(dialog, "directive-editor-too-long", 840, 460)
    command = CommandPanel(gateway_bench(), theme, confirm=lambda *_args, **_more: None)
    command.prefill("dcu-3", "ADD_DIRECTIVE", {"id": "ReadoutDirective1", "steps": STEPS})
    shoot(command, "command-directive", 360, 620)
    for name, item in (
        ("directives", list_item()),
        ("log", log_item(9)),
        ("readout", readout_item(10)),
    ):
        reader = MemoryReader()
        reader.stories[item.id] = story(item)
        panel = DetailPanel(gateway_bench(), open_log(reader), theme, zone=UTC)
        panel.show_interaction(item.id)
        qtbot.waitUntil(until(lambda p=panel: bool(p.steps_model.rows())))  # type: ignore[misc]
        panel.tabs.setCurrentIndex(3)
        shoot(panel, f"detail-answer-{name}", 1100, 420)


def test_the_steps_told_are_all_there() -> None:
    assert [step for step, _at, _text in WHOLE] == list(Step)
    assert len(OUTGOING) == 7
