"""The picture of a battery system: what it takes from a packet, which way its arrows go, and when it gets old."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from PySide6.QtGui import QColor, QImage
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.adapters import _ems_rules as rules
from app.model.device import Device
from app.model.reading import LinkState, Quantity, SampleSet
from app.model.records import DeviceRemoved
from tests.ui.ems_fakes import EMS, MORE, QUANTITIES, ems_bench, packet, told
from tests.ui.fakes import POWER, START, FakeWorkbench, site
from ui.models.states import Seen
from ui.models.system import FIRST_SCALE_W, Part, Place, System, is_system, scale_w, system_of, watts_text
from ui.panels.system import SystemPanel
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.system_picture import SystemPicture

FRESH = timedelta(seconds=1)


def parts(sample: SampleSet) -> dict[Place, Part]:
    return {part.place: part for part in system_of(sample, None, FRESH).parts}


# ---------------------------------------------------------------- what a packet says


@pytest.mark.parametrize(
    ("values", "place", "flow", "words"),
    [
        ({"battery_power": "558.6"}, Place.BATTERY, -558.6, "558.6 W charging"),
        ({"battery_power": "-300"}, Place.BATTERY, 300.0, "300 W discharging"),
        ({"battery_power": "0.4"}, Place.BATTERY, -0.4, "0.4 W no flow"),
        ({"grid_power": "-200"}, Place.GRID, -200.0, "200 W export"),
        ({"grid_power": "1250.5"}, Place.GRID, 1250.5, "1250.5 W import"),
        ({"inverter_ac_power": "1.12"}, Place.INVERTER, 1120.0, "1.12 kW feeding in"),
        ({"load_active_power": "0.361"}, Place.LOAD, -361.0, "0.361 kW consumed"),
    ],
)
def test_flows_follow_the_signs_of_the_specification(
    values: dict[str, str], place: Place, flow: float, words: str
) -> None:
    part = parts(packet(START, **values))[place]
    assert part.flow_w == pytest.approx(flow)
    assert f"{part.power} {part.direction}" == words


def test_what_is_not_in_the_packet_is_not_made_up() -> None:
    found = parts(packet(START))
    assert Place.INVERTER not in found
    assert found[Place.LOAD].flow_w is None, "and not worked out from a balance"
    assert found[Place.LOAD].direction == "not reported"
    odd = SampleSet(device=EMS, received=START, values=((Quantity("grid_power", "hp"), Decimal(3)),))
    assert parts(odd)[Place.GRID].flow_w is None, "a unit that nobody knows is no power"
    with_voltage = parts(packet(START, inverter_dc_voltage="400"))
    assert with_voltage[Place.INVERTER].flow_w is None


def test_details_have_units_and_words() -> None:
    found = parts(packet(START, **MORE))
    assert found[Place.GRID].details == ("230.1 V", "50.0 Hz")
    assert found[Place.INVERTER].details == ("efficiency 96.5 %",)
    assert found[Place.INVERTER].sentence == "Inverter: 1.12 kW feeding in, efficiency 96.5 %"


@pytest.mark.parametrize(("told", "charge"), [("85", 85.0), ("-3", 0.0), ("104.5", 100.0)])
def test_the_charge_is_drawn_within_the_battery_and_told_as_it_came(told: str, charge: float) -> None:
    system = system_of(packet(START, battery_soc=told), None, FRESH)
    assert system.charge == charge
    assert system.charge_text == f"{told} %"


def test_values_are_old_after_three_seconds() -> None:
    sample = packet(START)
    assert system_of(sample, None, timedelta(seconds=3)).age_s is None
    assert system_of(sample, None, timedelta(seconds=3.1)).age_s == 3


def test_the_scale_grows_in_round_steps_and_never_shrinks() -> None:
    assert scale_w(558.6, FIRST_SCALE_W) == 1000
    assert [scale_w(watts, FIRST_SCALE_W) for watts in (1001, 2001, 5001, 20001)] == [2000, 5000, 10000, 50000]
    assert scale_w(10, 5000.0) == 5000
    assert (watts_text(500), watts_text(2500)) == ("500 W", "2.5 kW")


def test_which_devices_are_systems() -> None:
    assert is_system(("grid_power", "battery_power", "x"))
    assert not is_system(("battery_power",))


# ---------------------------------------------------------------- the picture


@pytest.fixture
def theme(qapp: QApplication) -> Iterator[Theme]:
    palette = qapp.palette()
    made = Theme(qapp, ThemeMode.LIGHT)
    made.install()
    yield made
    qapp.styleHints().unsetColorScheme()
    qapp.setPalette(palette)


def drawn(theme: Theme, system: System, width: int, height: int, scale: float = 1000.0) -> QImage:
    picture = SystemPicture(theme)
    picture.resize(width, height)
    picture.show_system(system, scale)
    return picture.grab().toImage()


def count(image: QImage, colour: QColor, top: int = 0, bottom: int | None = None) -> int:
    rows = range(top, bottom if bottom is not None else image.height())
    return sum(image.pixelColor(x, y) == colour for y in rows for x in range(image.width()))


def test_an_arrow_is_as_wide_as_its_flow(theme: Theme, qtbot: QtBot) -> None:
    accent = theme.colour(Role.ACCENT)

    def ink(watts: str) -> int:
        system = system_of(packet(START, battery_power=watts, grid_power="0"), None, FRESH)
        return count(drawn(theme, system, 700, 300), accent)

    thin, wide, widest = ink("20"), ink("500"), ink("1000")
    assert 0 < thin < wide < widest
    assert ink("0") == 0


def test_an_arrow_points_where_the_power_goes(theme: Theme, qtbot: QtBot) -> None:
    accent = theme.colour(Role.ACCENT)

    def tip_is_up(watts: str) -> bool:
        """The head is the widest part of an arrow."""
        image = drawn(theme, system_of(packet(START, battery_power="0", grid_power=watts), None, FRESH), 700, 300)
        rows = [y for y in range(image.height()) if any(image.pixelColor(x, y) == accent for x in range(700))]
        widths = {y: sum(image.pixelColor(x, y) == accent for x in range(700)) for y in rows}
        widest = max(widths, key=widths.__getitem__)
        return widest - rows[0] < rows[-1] - widest

    assert tip_is_up("400"), "import: from the grid's box up to the bar"
    assert not tip_is_up("-400")


def test_old_values_and_errors_have_their_colours(theme: Theme, qtbot: QtBot) -> None:
    seen = Seen("ERROR", "AUTO", ("OVERHEAT",))
    fresh = drawn(theme, system_of(packet(START), seen, FRESH), 700, 300)
    stale = drawn(theme, system_of(packet(START), seen, timedelta(seconds=9)), 700, 300)
    assert count(fresh, theme.colour(Role.BAD)) > 500
    assert count(fresh, theme.colour(Role.ACCENT)) > 0
    assert count(stale, theme.colour(Role.ACCENT)) == 0
    assert count(stale, theme.colour(Role.WARNING)) > 0, "it says so"


@pytest.mark.parametrize(("width", "height"), [(1200, 700), (700, 260), (420, 460), (300, 300)])
def test_everything_fits_wide_and_narrow(theme: Theme, qtbot: QtBot, width: int, height: int) -> None:
    picture = SystemPicture(theme)
    picture.show_system(system_of(packet(START, **MORE), Seen("IDLE", "AUTO"), FRESH), 2000.0)
    least = picture.minimumSizeHint().expandedTo(picture.size())
    picture.resize(max(width, picture.minimumSizeHint().width()), max(height, picture.heightForWidth(width)))
    assert least.width() > 0
    image = picture.grab().toImage()
    edge = {image.pixelColor(image.width() - 1, y).name() for y in range(image.height())}
    assert len(edge) == 1, "nothing runs out of the picture"


def test_the_same_in_words(theme: Theme, qtbot: QtBot) -> None:
    picture = SystemPicture(theme)
    picture.show_system(system_of(packet(START), Seen("CHARGING", "AUTO"), timedelta(seconds=12)), 1000.0)
    assert picture.accessibleDescription().split("\n") == [
        "CHARGING, mode AUTO",
        "Last packet 12 s ago: these are old values.",
        "Grid: 200 W export, 230.1 V, 50.0 Hz",
        "Battery: 558.6 W charging, 53.2 V, 10.5 A, charge 85 %",
        "Load: not reported",
    ]


def test_the_same_packet_is_not_drawn_again(theme: Theme, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = SystemPicture(theme)
    updates: list[int] = []
    monkeypatch.setattr(picture, "update", lambda: updates.append(1))
    for at in (START, START + timedelta(seconds=1)):
        picture.show_system(system_of(packet(at), None, FRESH), 1000.0)
    assert updates == [1]


# ---------------------------------------------------------------- the panel


@pytest.fixture
def bench() -> FakeWorkbench:
    return ems_bench()


@pytest.fixture
def panel(bench: FakeWorkbench, theme: Theme, qtbot: QtBot) -> SystemPanel:
    made = SystemPanel(bench, theme)
    qtbot.addWidget(made)
    made.resize(900, 400)
    made.show()
    qtbot.waitExposed(made)
    return made


def test_it_says_what_to_choose(panel: SystemPanel, bench: FakeWorkbench) -> None:
    assert "Choose a battery system" in panel.empty_text()
    assert "Battery hall 1" in panel.empty_text()
    panel.set_device("lem-1")
    assert "tells no battery and grid power" in panel.empty_text()
    panel.set_device(EMS)
    assert "has sent no telemetry" in panel.empty_text()
    bench.set_link(EMS, LinkState.OFF)
    panel.on_batch([bench.state(EMS)])
    assert "Connect it first" in panel.empty_text()
    panel.on_samples([packet(START)])
    assert panel.empty_text() == ""


def test_there_is_a_system_only_while_the_tree_has_one(panel: SystemPanel, bench: FakeWorkbench) -> None:
    said: list[bool] = []
    panel.systemsChanged.connect(said.append)
    panel.set_device(EMS)
    panel.on_samples([packet(START)])
    device = bench.device(EMS)
    bench.remove_device(EMS)
    panel.on_batch([DeviceRemoved(EMS)])
    assert not panel.has_systems
    assert "No device of this workspace" in panel.empty_text()
    bench.save_device(device)
    panel.on_batch([device])
    assert said == [False, True]
    panel.set_device(EMS)
    assert "has sent no telemetry" in panel.empty_text(), "its packets went with it"


def test_every_system_is_shown_at_once_when_it_is_chosen(theme: Theme, qtbot: QtBot) -> None:
    other = Device(id="ems-2", name="Container 2", adapter="fake-ems", serial="ems_002")
    panel = SystemPanel(ems_bench(other), theme)
    qtbot.addWidget(panel)
    panel.show()
    panel.set_device(EMS)
    panel.on_samples([packet(START), packet(START, "ems-2", grid_power="777")])
    panel.set_device("ems-2")
    assert "777 W import" in panel.picture.accessibleDescription()


def test_answers_and_other_devices_are_no_telemetry(panel: SystemPanel) -> None:
    panel.set_device(EMS)
    panel.on_samples([SampleSet(device="lem-1", received=START, values=((POWER, Decimal(1)),))])
    answer = SampleSet(device=EMS, received=START, values=((QUANTITIES["battery_soc"], Decimal(1)),), interaction=7)
    panel.on_samples([answer])
    assert "has sent no telemetry" in panel.empty_text()


def test_it_follows_state_and_age_without_drawing_for_nothing(
    panel: SystemPanel, bench: FakeWorkbench, qtbot: QtBot
) -> None:
    panel.set_device(EMS)
    told(bench, START, state="CHARGING", mode="AUTO", error_flags=[])
    panel.on_samples([packet(START)])
    system = panel.picture.system
    assert system is not None
    assert system.seen == Seen("CHARGING", "AUTO")
    assert not system.is_stale
    bench.fake_clock.move(5)
    panel._age_timer.setInterval(0)  # the wait for it is Qt's
    qtbot.waitUntil(lambda: panel.picture.system is not None and panel.picture.system.age_s == 5)
    panel.on_batch([told(bench, START, state="ERROR", error_flags=["OVERHEAT"])])
    system = panel.picture.system
    assert system is not None
    assert system.seen == Seen("ERROR", "AUTO", ("OVERHEAT",))
    panel.hide()
    assert not panel._age_timer.isActive(), "nobody looks"


def test_a_manual_mode_that_this_hub_holds_is_said(panel: SystemPanel, bench: FakeWorkbench) -> None:
    panel.set_device(EMS)
    told(bench, START, state="CHARGING", mode="MANUAL", error_flags=[], held_in_manual=rules.REVERTS)
    panel.on_samples([packet(START)])
    assert "goes back to AUTO" in panel.held.text()
    assert panel.held.isVisible()
    bench.set_link(EMS, LinkState.FAULT, "The device does not answer.")
    panel.on_batch([bench.state(EMS)])
    assert not panel.held.isVisible(), "the connection that holds it is gone"
    assert panel.link.isVisible()
    assert panel.link.text() == "fault: The device does not answer."


def test_without_a_battery_system_there_is_nothing(theme: Theme, qtbot: QtBot) -> None:
    panel = SystemPanel(FakeWorkbench(site()), theme)
    qtbot.addWidget(panel)
    assert not panel.has_systems
    assert "No device of this workspace" in panel.empty_text()
