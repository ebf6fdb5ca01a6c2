"""SET_MODE and RESET_ERROR in the window: cautions before sending, a held manual mode, and the tab of the system."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.adapters import _ems_rules as rules
from app.model.command import ParamSpec, ParamType
from app.model.reading import LinkState
from tests.ui.ems_fakes import EMS, ems_bench, packet, told
from tests.ui.fakes import START, FakeWorkbench, site
from tests.ui.test_command_panel import Asker
from tests.ui.test_main_window import Bench
from ui.dialogs.confirm import CommandQuestion
from ui.models.states import Seen
from ui.panels.command import CommandPanel, ParamField
from ui.theme import Theme, ThemeMode

DISCHARGE = {"target_mode": "MANUAL_DISCHARGE", "target_power": Decimal(500)}


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def bench() -> FakeWorkbench:
    return ems_bench()


@pytest.fixture
def asker() -> Asker:
    return Asker()


@pytest.fixture
def panel(bench: FakeWorkbench, theme: Theme, qtbot: QtBot, asker: Asker) -> CommandPanel:
    made = CommandPanel(bench, theme, confirm=asker)
    qtbot.addWidget(made)
    made.resize(360, 700)
    made.show()
    made.prefill(EMS, "SET_MODE")
    return made


def fill(panel: CommandPanel, **values: Any) -> None:
    panel.prefill(EMS, "SET_MODE", values)


def test_the_panel_warns_of_a_clamp_while_it_is_filled_in(panel: CommandPanel) -> None:
    assert not panel.caution.isVisible()
    fill(panel, target_mode="AUTO")
    assert not panel.caution.isVisible()
    fill(panel, **DISCHARGE)
    assert panel.caution.isVisible()
    assert "300 W" in panel.caution.text()
    assert panel.send.isEnabled(), "it warns and does not forbid"
    panel.choose("RESET_ERROR")
    assert not panel.caution.isVisible()


def test_the_question_has_the_caution(theme: Theme, qtbot: QtBot, bench: FakeWorkbench) -> None:
    parent = QWidget()
    qtbot.addWidget(parent)
    device = bench.device(EMS)

    def question(**params: Any) -> CommandQuestion:
        return CommandQuestion(parent, device=device, spec=rules.SET_MODE, params=params, old_value=None, theme=theme)

    asked = question(**DISCHARGE)
    assert "300 W" in asked.caution.text()
    assert not hasattr(question(target_mode="AUTO"), "caution")


def test_what_would_be_refused_is_said_before_any_question(
    panel: CommandPanel, asker: Asker, bench: FakeWorkbench
) -> None:
    fill(panel, target_mode="AUTO", other_mode="MANUAL_TEST")
    panel.press()
    assert not asker.asked
    assert "not both" in panel.outcome.text()
    assert not [call for call in bench.calls if call[0] == "submit"]
    panel.prefill(EMS, "SET_MODE", {"target_mode": "AUTO", "other_mode": ""})
    panel.press()
    assert [asked["spec"] for asked in asker.asked] == ["SET_MODE"]


def test_the_head_says_that_this_hub_holds_a_manual_mode(panel: CommandPanel, bench: FakeWorkbench) -> None:
    assert not panel.held.isVisible()
    panel.on_batch([told(bench, START, state="CHARGING", mode="MANUAL", held_in_manual=rules.REVERTS)])
    assert panel.held.text() == rules.REVERTS
    assert panel.held.isVisible()
    bench.set_link(EMS, LinkState.FAULT, "gone")
    panel.on_batch([bench.state(EMS)])
    assert not panel.held.isVisible(), "a connection that is gone holds nothing"


def test_a_port_says_nothing_about_bytes(theme: Theme, qtbot: QtBot) -> None:
    for kind, says in ((ParamType.PORT, False), (ParamType.TEXT, True)):
        field = ParamField(ParamSpec(name="port", title="Port", type=kind, max_bytes=300, help="Where."), theme)
        qtbot.addWidget(field)
        assert ("bytes" in field.hint.text()) is says


def test_the_window_has_the_tab_and_feeds_chart_and_picture(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = ems_bench()
    window = Bench(qtbot, theme, tmp_path, bench).window
    place = [window.tabs.tabText(at) for at in range(window.tabs.count())].index("System")
    assert window.tabs.isTabVisible(place)
    window.show_device(EMS)
    window.tabs.setCurrentIndex(place)
    assert window.system is not None
    assert window._bridge is not None
    for second, state in enumerate(("IDLE", "CHARGING", "FULL")):
        bench.feed.publish(packet(bench.clock.now()))
        told(bench, bench.clock.now(), state=state, mode="AUTO", error_flags=[])
        bench.fake_clock.move(1)
        if second == 0:
            window._bridge.flush()  # the first packet brings its curves
    window._bridge.flush()
    assert "FULL, mode AUTO" in window.system.picture.accessibleDescription()
    assert window.chart is not None
    track = window.chart._tracks[EMS]
    assert [piece.seen for piece in track.pieces(0, 10**18, 0)] == [
        Seen(state, "AUTO") for state in ("IDLE", "CHARGING", "FULL")
    ], "also those that came within one tenth of a second"
    window.detach()
    assert not window.tabs.isTabVisible(place)


def test_a_workspace_without_a_battery_system_has_no_such_tab(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    window = Bench(qtbot, theme, tmp_path, FakeWorkbench(site())).window
    place = [window.tabs.tabText(at) for at in range(window.tabs.count())].index("System")
    assert not window.tabs.isTabVisible(place)
